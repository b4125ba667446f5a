// A reward model as a source of rewards, in the same process and on the same device.
import { expectation } from '../../reward/distribution.ts'
import type { RewardModel } from '../../reward/model.ts'
import type { EncodedRow, Row } from '../../reward/rows.ts'
import { parseScoreKind, pointScore, type ScoreKind } from '../../reward/scoring.ts'
import { type BosPolicy, renderOpenChat } from '../../text/chat.ts'
import type { Tokenizer } from '../../text/tokenizer.ts'
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
  /** Of BOS in the model's own template; default: the template's. */
  readonly bos?: BosPolicy
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
  const { lambda = model.lambda, bos = 'template' } = options
  const { levels } = model
  if (rescale && risk.kind !== 'utility') throw new Error(`${name}: only the utility can be rescaled, not ${risk.kind}`)
  if (risk.kind === 'utility' && lambda === 0 && !rescale)
    throw new Error(`${name}: the utility of lambda 0 is -1 for every completion; give a lambda above 0`)
  const source: RewardSource = {
    name,
    weight,
    levels,
    ...(rescale && { origin: null }),
    identity: {
      'a reward model with the fingerprint': await model.fingerprint(),
      ...{ risk, lambda, rescale, policyTokens, bos },
    },
    async score(rows, { signal }) {
      const encoded = rows.map((row) => (policyTokens ? { input_ids: idsOf(row) } : textRow(row, model, name, bos)))
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

/** Prompt and completion as the policy has them. */
function idsOf({ prompt_ids, completion_ids }: RewardRow): Uint32Array<ArrayBuffer> {
  const ids = new Uint32Array(prompt_ids.length + completion_ids.length)
  ids.set(prompt_ids)
  ids.set(completion_ids, prompt_ids.length)
  return ids
}

function textRow(
  { messages, completion, finish_reason, id }: RewardRow,
  { tokenizer }: { readonly tokenizer: Tokenizer | null },
  name: string,
  bos: BosPolicy,
): Row | EncodedRow {
  if (messages === null || completion === null || tokenizer === null) {
    const what = tokenizer === null ? 'the reward model has no tokenizer' : `prompt ${id + 1} has no text`
    throw new Error(`${name}: ${what}; give it the policy's tokens (--reward-tokens policy)`)
  }
  if (finish_reason === 'stop') return { messages: [...messages, { role: 'assistant', content: completion }] }
  return { input_ids: renderOpenChat(tokenizer, messages, completion, { bos }) }
}
