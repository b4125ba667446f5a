// Where the rewards of a command come from, opened on its device, and RLOO as the commands that train adapters run it.
import type { Device } from '../../device/device.ts'
import type { ModelFiles } from '../../files/source.ts'
import { loadRewardModel, type RewardModel } from '../../reward/model.ts'
import type { ScoreKind } from '../../reward/scoring.ts'
import type { AdapterRecipe } from '../adapter_recipes.ts'
import type { AdapterProgress, KeepOptions } from '../adapter_training.ts'
import type { RolloutProgress } from './collect.ts'
import { type HttpRewardOptions, httpReward } from './http_reward.ts'
import { modelReward } from './model_reward.ts'
import { type ModuleReward, moduleReward } from './module_reward.ts'
import { encodeRlooPrompts, type RlooPrompt } from './prompts.ts'
import type { RewardSource } from './rewards.ts'
import { type RlooResult, trainRloo } from './rloo.ts'
import type { RlooSettings } from './settings.ts'

/** A reward as it is named: a model directory, a module, or an address. */
export type RewardTarget = {
  readonly weight: number
  /** What the log calls it. */
  readonly name?: string
} & (
  | { readonly kind: 'model'; readonly files: ModelFiles }
  | ({ readonly kind: 'module' } & ModuleReward)
  | { readonly kind: 'url'; readonly url: string }
)

/** How rewards of each kind are asked for. */
export interface RewardChoice {
  /** Of reward models. */
  readonly risk: ScoreKind
  readonly lambda?: number
  readonly rescale: boolean
  readonly policyTokens: boolean
  /** Of addresses. */
  readonly http: Pick<HttpRewardOptions, 'timeoutSeconds' | 'tries' | 'onRetry'>
}

interface OpenRewards {
  readonly sources: readonly RewardSource[]
  destroy(): Promise<void>
}

/** Loads reward models and makes sources of all targets, in their order. A directory that is named twice is loaded once. */
async function openRewards(
  device: Device,
  targets: readonly RewardTarget[],
  { risk, lambda, rescale, policyTokens, http }: RewardChoice,
): Promise<OpenRewards> {
  const models = new Map<string, RewardModel>()
  const destroy = async () => {
    for (const model of models.values()) await model.destroy()
  }
  try {
    const sources: RewardSource[] = []
    for (const target of targets) {
      const { weight, name } = target
      if (target.kind === 'url') sources.push(httpReward(target.url, { ...http, weight, name }))
      else if (target.kind === 'module') sources.push(moduleReward(target, { weight, name: name ?? target.path }))
      else {
        const { files } = target
        const model = models.get(files.name) ?? (await loadRewardModel(device, files))
        models.set(files.name, model)
        sources.push(await modelReward(model, { name, weight, risk, lambda, rescale, policyTokens }))
      }
    }
    return { sources, destroy }
  } catch (error) {
    await destroy()
    throw error
  }
}

/** RLOO on rewards; `settings` are those that not every training of adapters has. */
export function rlooRecipe(
  targets: readonly RewardTarget[],
  choice: RewardChoice,
  settings: Partial<Omit<RlooSettings, 'adapter'>>,
): AdapterRecipe<RlooPrompt, RlooResult> {
  return {
    encode: encodeRlooPrompts,
    async train({ device, files }, { training, held }, shared) {
      const rewards = await openRewards(device, targets, choice)
      try {
        const follow = followRloo(shared.onProgress)
        const {
          adapter: _,
          finished,
          ...result
        } = await trainRloo(device, files, training, rewards.sources, {
          ...{ ...shared, ...settings, held },
          onEntry(entry) {
            follow.entry(entry)
            shared.onEntry?.(entry)
          },
          onProgress: follow.progress,
          onRollout: follow.rollout,
        })
        return { result, finished }
      } finally {
        await rewards.destroy()
      }
    },
  }
}

/** Puts together what is known of a training; drawing its completions counts as half of a step. */
function followRloo(onProgress: KeepOptions['onProgress']) {
  let last: AdapterProgress = { step: 0, steps: 0, done: 0, tokens: 0, loss: null, gradNorm: null }
  let [reward, klSeq]: (number | null)[] = [null, null]
  let drawn: RolloutProgress | null = null
  let drawing = false
  const report = () => {
    const share = drawn === null || drawn.step === null ? 0 : drawn.done / drawn.completions / 2
    const done = Math.min(last.steps, last.step + share)
    const tokens = last.tokens + (drawn?.step == null ? 0 : drawn.tokens)
    onProgress?.({ ...last, done, tokens, policy: { reward, klSeq, drawn: drawing ? drawn : null } })
  }
  return {
    entry(entry: object) {
      const line = entry as { readonly loss?: number; readonly reward?: number; readonly kl_seq?: number }
      if (line.loss === undefined) return
      reward = line.reward ?? null
      klSeq = line.kl_seq ?? null
    },
    progress(now: AdapterProgress) {
      drawing = false
      // Between two steps all tokens are counted; within one those that are drawn.
      if (now.done === now.step) {
        last = now
        drawn = null
      }
      report()
    },
    rollout(now: RolloutProgress) {
      drawing = true
      drawn = now
      report()
    },
  }
}
