// A bandit with a known optimum: a causal model of four tokens, each of them an answer whose reward distribution is known.
//
// The policy that maximises E[r] - beta KL(policy, base) is p(a) ~ base(a) exp(E[r(a)] / beta). Answers 0 and 1 have the same mean,
// and 1 is uncertain; 2 and 3 are worse. Seen through the utility (1 - exp(-lambda r)) / lambda, answer 1 is worse than 0 by a
// difference that is known too.
import { randomBits } from '../src/data/random.ts'
import type { Device } from '../src/device/device.ts'
import type { Adapter } from '../src/llama/adapter_files.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { loadAdapter, NO_ADAPTER } from '../src/llama/lora_adapter.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { openModelDirectory } from '../src/reward/directory.ts'
import { openPolicyPass } from '../src/train/rloo/policy_pass.ts'
import type { RlooPrompt } from '../src/train/rloo/prompts.ts'
import type { RewardSource } from '../src/train/rloo/rewards.ts'
import type { RlooOptions } from '../src/train/rloo/rloo.ts'
import { causalModel } from './causal_model.ts'

/** Of each answer: mean, and how far its two equally probable rewards are from that. */
export const ANSWERS = [
  { mean: 0, width: 0.1 },
  { mean: 0, width: 1 },
  { mean: -0.5, width: 0.1 },
  { mean: -0.5, width: 0.1 },
]

/** Expected reward of an answer, or with a lambda its expected utility. */
export function worthOf(answer: number, lambda: number): number {
  const { mean, width } = ANSWERS[answer]
  return lambda === 0 ? mean : (1 - Math.exp(-lambda * mean) * Math.cosh(lambda * width)) / lambda
}

/** One token of the prompt, one of the answer. */
export const BANDIT_SETTINGS = {
  ...{ k: 8, batch: 64, maxNewTokens: 1, beta: 0.25, lr: 0.02, schedule: 'cosine', rank: 4, alpha: 8 },
} satisfies RlooOptions
/** More than one token: attention to one alone has no gradient. */
const PROMPT = Uint32Array.of(1, 2)

/** Every row is a group, though all have the same text. */
export const banditPrompts = (rows = 8): RlooPrompt[] =>
  Array.from({ length: rows }, () => ({ tokens: PROMPT, messages: null }))

/** The files of the model. */
export async function banditModel() {
  const changes = { heads: 2, headDim: 8, hidden: 16, intermediate: 16, layers: 1, vocab: 4, storage: 'f32' } as const
  return (await causalModel(3, changes)).files
}

/** Draws a reward for each answer and gives it as it is, or its utility. */
export function banditReward(seed: number, lambda: number): RewardSource {
  return {
    name: 'bandit',
    identity: { seed, lambda },
    async score(rows, { step }) {
      const rewards = rows.map(({ completion_ids: [answer] }, i) => {
        const { mean, width } = ANSWERS[answer]
        const drawn = randomBits(seed + 1000, step + 1, i) < 2 ** 31 ? mean - width : mean + width
        return lambda === 0 ? drawn : (1 - Math.exp(-lambda * drawn)) / lambda
      })
      return { rewards }
    },
  }
}

/** Log-probabilities of the answers under an adapter, or under none. */
export async function answerLogprobs(device: Device, adapter: Adapter | null): Promise<number[]> {
  const directory = await openModelDirectory(await banditModel())
  const config = parseLlamaConfig(directory.config, 'bandit')
  const model = await openBackbone(device, directory)
  const output = await openOutputLayer(device, config, outputInfo(directory.tensors, config)!)
  const loaded = adapter ? loadAdapter(device, adapter, config) : NO_ADAPTER
  const completions = ANSWERS.map((_, answer) => ({ group: 0, prompt: PROMPT, tokens: Uint32Array.of(answer) }))
  const options = { temperature: 1, checkpointing: false, forwardOnly: true }
  const pass = await openPolicyPass({ device, model, output }, loaded.layers, completions, options)
  for (const thing of [pass, loaded, output, model]) thing.destroy()
  await directory.close()
  return pass.logprobs.map(([value]) => value)
}
