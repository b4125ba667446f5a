// Held-out prompts under the policy as it is: their rewards, and how far it is from the reference. Nothing that only training has.
import type { LoraLayer } from '../../llama/lora.ts'
import { cutByTokens } from '../data_order.ts'
import { deviation, lengthNumbers, meanOf, measuredNumbers } from './log.ts'
import { openPolicyPass, type PolicyModel } from './policy_pass.ts'
import { type Completion, counts, type Measured, measure, type Rollout } from './rollout.ts'
import type { RlooTaskOptions } from './task.ts'

/** Numbers about a rollout on held-out prompts, one completion each. */
export async function evaluateRollout(
  model: PolicyModel,
  layers: readonly LoraLayer[],
  reference: readonly LoraLayer[],
  { completions, numbers }: Rollout,
  settings: RlooTaskOptions,
): Promise<Record<string, number>> {
  const { temperature, beta, rows } = settings
  const measured: (Measured | null)[] = completions.map(() => null)
  const own = completions.flatMap((completion, i) => (counts(completion, settings) ? [i] : []))
  const lengthOf = (i: number) => completions[i].prompt.length + completions[i].tokens.length
  for (const piece of cutByTokens(own, lengthOf, rows)) {
    const some = piece.map((i) => completions[i])
    const run = async (under: readonly LoraLayer[]) => {
      const pass = await openPolicyPass(model, under, some, { temperature, checkpointing: true, forwardOnly: true })
      pass.destroy()
      return pass
    }
    const base = beta === 0 ? null : await run(reference)
    const policy = await run(layers)
    for (const [place, i] of piece.entries()) {
      const [logprobs, entropies] = [policy.logprobs[place], policy.entropies[place]]
      measured[i] = measure(completions[i], logprobs, entropies, base?.logprobs[place] ?? null, settings)
    }
  }
  const given = completions.flatMap(({ reward }: Completion) => (reward === null ? [] : [reward]))
  return {
    reward: meanOf(given),
    reward_std: deviation(given),
    ...numbers,
    ...measuredNumbers(completions, measured),
    ...lengthNumbers(completions),
  }
}
