// A reward model as a source of rewards, in the same process and on the same device.
import { answerRow, tokensRow } from '../../reward/answer_row.ts'
import { expectation } from '../../reward/distribution.ts'
import type { RewardModel } from '../../reward/model.ts'
import { type EncodedRow, encodeNamed } from '../../reward/rows.ts'
import { parseScoreKind, pointScore, type ScoreKind } from '../../reward/scoring.ts'
import { meanOf } from './log.ts'
import type { RewardRow, RewardSource } from './rewards.ts'

export interface ModelRewardOptions {
  readonly name?: string
  /** Default 1. */
  readonly weight?: number
  /** Which number of the distribution is the reward; default the expectation. */
  readonly risk?: ScoreKind
  /** Of utility and certainty equivalent; default the model's. */
  readonly lambda?: number
  /**
   * Only for the utility: (1 - mean exp(-lambda (q - origin))) / lambda in its place, which orders alike and has slope 1 at the origin,
   * so that the KL weighs the same for every lambda. The origin is the mean expectation of the first rollout.
   */
  readonly rescale?: boolean
  /** Whether the model reads the policy's tokens as they are; default false: it reads the text in its own template. */
  readonly policyTokens?: boolean
}

/** Parses a risk: `neutral`, or the name of a score. */
export function parseRisk(text: string): ScoreKind {
  return text === 'neutral' ? { kind: 'expectation' } : parseScoreKind(text)
}

/**
 * Makes a source of a reward model, which stays the caller's. It reads what `score` would be given: the conversation with the decoded
 * completion as the answer, in the template of the model; one that was truncated has no end of turn. Beginnings that rows have in
 * common, such as the prompt of a group, are computed once. Throws where lambda is 0 and the utility therefore says nothing.
 */
export async function modelReward(model: RewardModel, options: ModelRewardOptions = {}): Promise<RewardSource> {
  const { name = model.name, weight, risk = { kind: 'expectation' }, rescale = false, policyTokens = false } = options
  const { lambda = model.lambda } = options
  const { levels } = model
  if (rescale && risk.kind !== 'utility') throw new Error(`${name}: only the utility can be rescaled, not ${risk.kind}`)
  if (risk.kind === 'utility' && lambda === 0 && !rescale)
    throw new Error(`${name}: the utility of lambda 0 is -1 for every completion; give a lambda above 0`)
  const source: RewardSource = {
    name,
    weight,
    levels,
    ...(!policyTokens && { reads: 'messages' as const }),
    ...(rescale && { origin: null }),
    identity: {
      'a reward model with the fingerprint': await model.fingerprint(),
      ...{ risk, lambda, rescale, policyTokens },
    },
    async score(rows, { signal }) {
      const encoded = encodeNamed(
        rows,
        (row) => rewardRow(model, row, policyTokens),
        (i) => `${name}: prompt ${rows[i]!.id + 1}`,
      )
      const found = await model.score(encoded, { lambda, signal })
      if (rescale) source.origin ??= Math.fround(meanOf(found.map((score) => score.expectation)))
      const rewards = found.map((score) =>
        rescale ? rescaledUtility(score.quantiles, lambda, source.origin!) : pointScore(risk, score, levels, lambda),
      )
      return { rewards, distributions: found }
    },
  }
  return source
}

/** (1 - mean exp(-lambda (q - origin))) / lambda; at lambda 0 the limit, the expectation minus the origin. */
export function rescaledUtility(quantiles: readonly number[], lambda: number, origin: number): number {
  if (lambda === 0) return expectation(quantiles) - origin
  return -meanOf(quantiles.map((q) => Math.expm1(-lambda * (q - origin)))) / lambda
}

function rewardRow(model: RewardModel, row: RewardRow, policyTokens: boolean): EncodedRow {
  if (policyTokens) return tokensRow(model, row.prompt_ids, row.completion_ids)
  return answerRow(model, { messages: row.messages, text: row.completion, ended: row.finish_reason === 'stop' })
}
