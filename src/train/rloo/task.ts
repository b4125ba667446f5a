// RLOO as a task of the trainer: a rollout a step, and one update or more on it.
//
// In the first update one forward gives the old log-probabilities, the KL and the gradient, as long as a micro-batch has all that its
// advantages depend on. Where it does not (groups that are cut, advantages normalised over the batch) a forward of its own
// comes before the updates, over the same micro-batches and so with the same bits: either way every ratio of the first update is
// exactly 1.
import type { LoraLayer } from '../../llama/lora.ts'
import type { AdapterParameters } from '../adapter_parameters.ts'
import type { TokenTally } from '../adapter_training.ts'
import type { LogEntry } from '../log.ts'
import type { Statistic } from '../parameters.ts'
import type { Recorded, Task } from '../trainer.ts'
import { stepEntry, type UpdateSums } from './log.ts'
import { clippedTerm } from './objective.ts'
import { openPolicyPass, type PolicyModel } from './policy_pass.ts'
import {
  advantagesOf,
  type Completion,
  counts,
  cutRollout,
  type Measured,
  measure,
  type RlooBatch,
  type Rollout,
} from './rollout.ts'
import type { RlooSettings } from './settings.ts'

export interface RlooTally extends TokenTally {
  /** Of the last step. */
  readonly reward: number | null
  readonly klSeq: number | null
  /** Of the last evaluation. */
  readonly evalReward: number | null
  /** Bytes of generations.jsonl that the steps so far have written. */
  readonly written: number
}

/** A step when it is over: each completion with what was found of it. */
export interface RolloutStep {
  /** From 1. */
  readonly step: number
  readonly completions: readonly Completion[]
  readonly advantages: Float64Array
}

export interface RlooParts extends PolicyModel {
  readonly adapter: AdapterParameters
  /** The adapter of the reference; none: the base. */
  readonly reference: readonly LoraLayer[]
}

/** Where the data of the steps come from, and go to. */
export interface RlooSource {
  /** Tensors that the rollouts depend on beside the policy. */
  readonly statistics: readonly Statistic[]
  /** Steps that pass over all prompts once. */
  readonly stepsPerEpoch: number
  /** Draws and rewards the completions of a step, counted from 0. */
  rollout(step: number): Promise<Rollout>
  /** Takes a step that is over; gives how many bytes it adds to generations.jsonl. */
  finished?(step: RolloutStep): number
  /** Numbers about held-out prompts, where it is time for them; null where not. */
  evaluate?(step: number): Promise<Readonly<Record<string, number>> | null>
}

export interface RlooTaskOptions extends RlooSettings {
  /** Rows of a micro-batch where its completions are not counted. */
  readonly rows: number
}

const NOTHING: UpdateSums = { loss: 0, weight: 0, ratios: 0, low: 0, high: 0 }

/** Makes the task. Model, output layer, adapter and reference stay the caller's. */
export function rlooTask(
  parts: RlooParts,
  source: RlooSource,
  settings: RlooTaskOptions,
): Task<RlooBatch, UpdateSums, RlooTally> {
  const { adapter, reference } = parts
  const { temperature, checkpointing, beta } = settings
  /** The rollout of the step that is being made, and what is known of its completions. */
  let rollout: Rollout = { completions: [], numbers: {} }
  let measured: (Measured | null)[] = []
  let advantages: Float64Array = new Float64Array()
  /** Whether the first update is still to measure the completions. */
  let open = false
  let update = -1
  let sums = NOTHING
  let checked = false
  let moved = false

  /** Of a micro-batch, the completions that go through the model. */
  const counted = ({ members }: RlooBatch): readonly number[] =>
    members.filter((i) => counts(rollout.completions[i], settings))
  const pass = (own: readonly number[], layers: readonly LoraLayer[], forwardOnly: boolean) => {
    const completions = own.map((i) => rollout.completions[i])
    return openPolicyPass(parts, layers, completions, { temperature, checkpointing, forwardOnly })
  }
  /** Log-probabilities of the reference; null where nothing depends on them. */
  const referred = async (own: readonly number[]): Promise<readonly Float32Array[] | null> => {
    if (beta === 0) return null
    const under = await pass(own, reference, true)
    under.destroy()
    return under.logprobs
  }
  type Forward = Awaited<ReturnType<typeof pass>>
  const note = (own: readonly number[], forward: Forward, under: readonly Float32Array[] | null): void => {
    for (const [place, i] of own.entries()) {
      const [logprobs, entropies] = [forward.logprobs[place], forward.entropies[place]]
      measured[i] = measure(rollout.completions[i], logprobs, entropies, under?.[place] ?? null, settings)
    }
  }

  return {
    parameters: adapter.parameters,
    statistics: source.statistics,
    nothing: { tokens: 0, reward: null, klSeq: null, evalReward: null, written: 0 },
    adds: true,
    async updates(step) {
      rollout = await source.rollout(step)
      const { completions } = rollout
      const { batches, whole } = cutRollout(completions, settings, settings)
      measured = completions.map(() => null)
      advantages = new Float64Array(completions.length)
      open = whole && !settings.normalizeAdvantages
      update = -1
      if (!open) {
        for (const batch of batches) {
          const own = counted(batch)
          if (own.length === 0) continue
          const under = await referred(own)
          const forward = await pass(own, adapter.layers, true)
          forward.destroy()
          note(own, forward, under)
        }
        advantages = advantagesOf(completions, measured, settings)
      }
      return Array.from({ length: settings.updates }, () => batches)
    },
    async compute(batch, { index, total }) {
      if (index === 0) {
        adapter.clear()
        sums = NOTHING
        update++
      }
      const own = counted(batch)
      const first = open && update === 0
      const under = first && own.length > 0 ? await referred(own) : null
      const forward = own.length > 0 ? await pass(own, adapter.layers, false) : null
      try {
        if (first) {
          if (forward) note(own, forward, under)
          const found = advantagesOf(
            batch.members.map((i) => rollout.completions[i]),
            batch.members.map((i) => measured[i]),
            settings,
          )
          for (const [place, i] of batch.members.entries()) advantages[i] = found[place]
        }
        if (!forward) {
          sums = { ...sums, weight: total }
          return
        }
        const terms = own.map((i, place) =>
          clippedTerm(settings.aggregation, forward.logprobs[place], measured[i]!.old, advantages[i], settings.clip),
        )
        sums = terms.reduce(
          (sum, term) => ({
            loss: sum.loss + term.loss,
            weight: total,
            ratios: sum.ratios + term.ratios,
            low: sum.low + term.low,
            high: sum.high + term.high,
          }),
          sums,
        )
        const slopes = terms.map((term) => term.slopes)
        if (slopes.every((slope) => slope.every((value) => value === 0))) return
        moved = true
        await forward.backward(slopes, 1 / total, adapter.grads)
      } finally {
        forward?.destroy()
      }
    },
    async sums() {
      // Where all advantages are 0 there is no gradient to be looked at.
      if (moved && !checked) {
        await adapter.checkGradients()
        checked = true
      }
      return sums
    },
    record(tally, made): Recorded<RlooTally> {
      const { completions, numbers } = rollout
      const tokens = tally.tokens + completions.reduce((sum, own) => sum + own.prompt.length + own.tokens.length, 0)
      const entry = stepEntry(
        { ...made, epoch: made.step / source.stepsPerEpoch, tokens },
        { completions, measured, numbers },
        settings,
      )
      const written = tally.written + (source.finished?.({ step: made.step, completions, advantages }) ?? 0)
      const { reward = null, kl_seq: klSeq = null } = entry as { reward?: number; kl_seq?: number }
      return { tally: { ...tally, tokens, reward, klSeq, written }, entries: [entry] }
    },
    async evaluate(tally, step) {
      const numbers = await source.evaluate?.(step)
      if (!numbers) return { tally, entries: [] }
      const named = Object.entries(numbers).map(([name, value]) => [`eval_${name}`, value])
      const entry: LogEntry = { step, epoch: step / source.stepsPerEpoch, ...Object.fromEntries(named) }
      return { tally: { ...tally, evalReward: numbers.reward ?? null }, entries: [entry] }
    },
  }
}
