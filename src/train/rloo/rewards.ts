// Where rewards come from: any source gives a number for each completion or none, and sources are added up by their weights.
import { show } from '../../files/json.ts'
import { quantile, rearrange } from '../../reward/distribution.ts'
import type { HeadScore } from '../../reward/heads.ts'
import type { Message } from '../../text/chat.ts'
import { deviation, meanOf } from './log.ts'

/** A completion as a source of rewards is shown it. */
export interface RewardRow {
  /** Number of the row of prompts, from 0. */
  readonly id: number
  /** Of the row of prompts; null where it has none. */
  readonly label: unknown
  /** The row of prompts as it was read. */
  readonly row: unknown
  /** Turns of the prompt, a plain text as one of the user's; null where the row has token ids. */
  readonly messages: readonly Message[] | null
  /** Text of the prompt with what its template put around it; null without a tokenizer. */
  readonly prompt: string | null
  /** Text of the completion, without special tokens; null without a tokenizer. */
  readonly completion: string | null
  readonly prompt_ids: Uint32Array
  /** The stop token that ended it included. */
  readonly completion_ids: Uint32Array
  readonly finish_reason: 'stop' | 'length'
}

/** A reward distribution, as a reward model gives it. */
export type RewardDistribution = Pick<HeadScore, 'expectation' | 'utility' | 'quantiles' | 'attributes' | 'gate'>

/** What a source says of rows, in their order. */
export interface Rewards {
  /** null, NaN: there is none. Infinite ones stop the training. */
  readonly rewards: readonly (number | null | undefined)[]
  /** Where a reward model gave them. */
  readonly distributions?: readonly RewardDistribution[]
  /** What else is to be in the log, by name: means over the rows. */
  readonly extra?: Readonly<Record<string, number>>
}

export interface RewardContext {
  /** The step that is being made, from 0; -1 in an evaluation. */
  readonly step: number
  readonly signal?: AbortSignal
}

export interface RewardSource {
  /** What the log and errors call it. */
  readonly name: string
  /** Default 1. */
  readonly weight?: number
  /** What its rewards depend on beside the rows: JSON; a training that goes on must have the same. */
  readonly identity: unknown
  /** Levels of the quantiles, where it gives distributions. */
  readonly levels?: readonly number[]
  /** A number that its first rewards fix and that is kept with the training: null until then, and a float32 after it. */
  origin?: number | null
  /** What it reads beside tokens: `text` needs a policy with a tokenizer, `messages` prompts that are conversations, too. */
  readonly reads?: 'text' | 'messages'
  score(rows: readonly RewardRow[], context: RewardContext): Promise<Rewards>
}

/** Throws where sources cannot read what a policy writes after these prompts, or none has what reliability needs. */
export function checkSources(
  sources: readonly RewardSource[],
  prompts: readonly { readonly messages: unknown }[],
  { hasText, reliability }: { readonly hasText: boolean; readonly reliability: number | null },
): void {
  for (const { name, reads } of sources) {
    const remedy = reads === 'messages' ? "; let it read the policy's tokens (--reward-tokens policy)" : ''
    if (reads && !hasText) throw new Error(`${name}: reads texts, and the policy has no tokenizer.json${remedy}`)
    const ids = reads === 'messages' ? prompts.findIndex(({ messages }) => messages === null) : -1
    if (ids >= 0) throw new Error(`${name}: reads conversations, and prompt ${ids + 1} is token ids${remedy}`)
  }
  if (reliability !== null && !sources.some(({ levels }) => levels && levels.length > 1))
    throw new Error('rloo: reliability needs a reward model with quantiles; none of the rewards has a distribution')
}

/** A function that rewards: its numbers, null, undefined or NaN for none. */
export type RewardFunction = (
  rows: readonly RewardRow[],
) => readonly (number | null | undefined)[] | Promise<readonly (number | null | undefined)[]>

/** Makes a source of a function. `identity` says which function it is: a training goes on only with the same. */
export function functionReward(
  reward: RewardFunction,
  { name = 'function', weight, identity = name }: { name?: string; weight?: number; identity?: unknown } = {},
): RewardSource {
  return { name, weight, identity, score: async (rows) => ({ rewards: await reward(rows) }) }
}

/** Rewards of rows by all sources. */
export interface Combined {
  /** Weighted sum over the sources that gave one; null where none did. */
  readonly rewards: readonly (number | null)[]
  /** Widths of the central share of the distributions, weighted as the rewards are; null where there is none. */
  readonly widths: readonly (number | null)[]
  /** What the log says of them. */
  readonly numbers: Record<string, number>
}

/** Levels of the quantiles that the log has: 0.05 to 0.95. */
const LOGGED = Array.from({ length: 19 }, (_, k) => (k + 1) / 20)

/**
 * Asks all sources. Throws where one gives another number of rewards than there are rows or one that is infinite, and where no row has
 * a reward.
 */
export async function combineRewards(
  sources: readonly RewardSource[],
  rows: readonly RewardRow[],
  context: RewardContext,
  reliability: number | null,
): Promise<Combined> {
  const sums = new Float64Array(rows.length)
  const given = new Uint8Array(rows.length)
  const widths: (number | null)[] = rows.map(() => null)
  const numbers: Record<string, number> = {}
  let described = false
  for (const [s, source] of sources.entries()) {
    const { name, weight = 1, levels } = source
    const { rewards, distributions, extra = {} } = await source.score(rows, context)
    const own = checkRewards(rewards, rows, name)
    const key = sources.findIndex((other) => other.name === name) === s ? name : `${name}-${s + 1}`
    for (const [i, reward] of own.entries()) {
      if (reward === null) continue
      sums[i] += weight * reward
      given[i] = 1
    }
    const known = own.filter((reward) => reward !== null)
    if (known.length > 0) {
      numbers[`rewards/${key}/mean`] = meanOf(known)
      numbers[`rewards/${key}/std`] = deviation(known)
    }
    if (sources.length > 1 && known.length < own.length) numbers[`rewards/${key}/missing`] = own.length - known.length
    for (const [what, value] of Object.entries(extra)) numbers[`rewards/${key}/${what}`] = value
    if (!distributions || !levels) continue
    if (!described) Object.assign(numbers, distributionNumbers(distributions, levels))
    described = true
    if (reliability === null) continue
    for (const [i, { quantiles }] of distributions.entries())
      widths[i] = (widths[i] ?? 0) + Math.abs(weight) * widthOf(quantiles, levels, reliability)
  }
  if (reliability !== null && !described)
    throw new Error('rloo: reliability needs a reward model with quantiles; none of the rewards has a distribution')
  if (!given.some(Boolean)) throw new Error(`rloo: no completion of the batch has a reward, of ${rows.length}`)
  return { rewards: Array.from(sums, (sum, i) => (given[i] ? sum : null)), widths, numbers }
}

/** Rewards with null for none; throws on other numbers of them and on infinite ones. */
function checkRewards(rewards: unknown, rows: readonly RewardRow[], name: string): (number | null)[] {
  if (!Array.isArray(rewards) && !ArrayBuffer.isView(rewards))
    throw new Error(`${name}: must give a list of rewards, got ${show(rewards)}`)
  const list = Array.from(rewards as ArrayLike<unknown>)
  if (list.length !== rows.length)
    throw new Error(`${name}: must give a reward for each of ${rows.length} completions, got ${list.length}`)
  return list.map((reward, i) => {
    if (reward === null || reward === undefined || Number.isNaN(reward)) return null
    if (typeof reward === 'number' && Number.isFinite(reward)) return reward
    const { id } = rows[i]
    throw new Error(
      `${name}: a reward must be a finite number or null, prompt ${id + 1} got ${typeof reward === 'number' ? reward : show(reward)}`,
    )
  })
}

/** Width of the central share of a distribution: the calibrated quantiles in order, as a curve. */
function widthOf(quantiles: readonly number[], levels: readonly number[], share: number): number {
  const ordered = rearrange(quantiles)
  return quantile(ordered, levels, (1 + share) / 2) - quantile(ordered, levels, (1 - share) / 2)
}

/** Means over the rows: expectation, utility, quantiles (of more than one level), weights and attributes. */
function distributionNumbers(rows: readonly RewardDistribution[], levels: readonly number[]): Record<string, number> {
  const numbers: Record<string, number> = {
    'reward/expectation': meanOf(rows.map(({ expectation }) => expectation)),
    'reward/utility': meanOf(rows.map(({ utility }) => utility)),
  }
  if (levels.length > 1) {
    const curves = rows.map(({ quantiles }) => rearrange(quantiles))
    for (const level of LOGGED) {
      const name = String(Math.round(100 * level)).padStart(2, '0')
      numbers[`reward/q${name}`] = meanOf(curves.map((curve) => quantile(curve, levels, level)))
    }
  }
  for (const name of Object.keys(rows[0].gate)) numbers[`gate/${name}`] = meanOf(rows.map(({ gate }) => gate[name]))
  for (const name of Object.keys(rows[0].attributes))
    numbers[`attributes/${name}`] = meanOf(rows.map(({ attributes }) => attributes[name].expectation))
  return numbers
}
