// Scores of pairs and questions: from rows by a model, or from features by heads alone.
import type { Device } from '../device/device.ts'
import type { RunOptions } from '../reward/features.ts'
import { pairKeysOf } from '../reward/fitted.ts'
import type { HeadScore, Heads } from '../reward/heads.ts'
import type { RewardModel } from '../reward/model.ts'
import type { PairFile } from '../reward/pair_file.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { checkLength, type RowLimits } from '../reward/scored_rows.ts'
import { pointScore, type ScoreKind } from '../reward/scoring.ts'
import { checkSubsets, type PairSuite, type Question } from './questions.ts'

/** Whether rows get a second BOS, as pipelines give them that tokenise a rendered template once more. */
export type DoubleBos = 'off' | 'masked' | 'attended'

export interface ScoreChoice {
  /** What ranks; default: the expectation. */
  readonly score?: ScoreKind
  /** Risk aversion of utility and certainty equivalent; default: the model's. */
  readonly lambda?: number
}

export interface QuestionOptions extends ScoreChoice, RunOptions, RowLimits {
  /** Default: off. */
  readonly doubleBos?: DoubleBos
}

export interface PairFeatureOptions extends ScoreChoice {
  /** Called after each batch. */
  readonly onProgress?: (done: number, pairs: number) => void
  readonly signal?: AbortSignal
}

/** A scored question: the scores of its answers in order, the right ones first. */
export interface Scored {
  /** What errors call it. */
  readonly where: string
  readonly subset: string | null
  readonly id: string | null
  readonly right: number
  readonly scores: readonly number[]
}

export interface Scores {
  readonly questions: readonly Scored[]
  /** Why questions were left out. */
  readonly skipped: readonly string[]
  /** Keys (fitted.ts) of pairs, where they come from features: which pairs they are. */
  readonly keys?: readonly bigint[]
}

/** Scores all answers of the questions. Throws on the first that cannot be scored, or where none can. */
export async function scoreQuestions(
  model: RewardModel,
  all: readonly Question[],
  { score, lambda, doubleBos, skipInvalid, maxLength, ...run }: QuestionOptions = {},
): Promise<Scores> {
  const { questions, rows, skipped } = encodeQuestions(model, all, doubleBos === 'attended', { skipInvalid, maxLength })
  const found = await model.score(rows, { lambda, ...run })
  const points = found.map((one) => point(one, model, { score, lambda }))
  let at = 0
  const scored = questions.map(({ where, subset, id, right, rows: own }) => {
    const scores = points.slice(at, at + own.length)
    at += own.length
    return { where, subset, id, right, scores }
  })
  return { questions: scored, skipped }
}

function point(
  found: HeadScore,
  { levels, lambda: usual }: { readonly levels: readonly number[]; readonly lambda: number },
  { score = { kind: 'expectation' }, lambda = usual }: ScoreChoice,
): number {
  return pointScore(score, found, levels, lambda)
}

function encodeQuestions(
  model: RewardModel,
  all: readonly Question[],
  bos: boolean,
  { skipInvalid = false, maxLength }: RowLimits,
) {
  const questions: Question[] = []
  const rows: EncodedRow[] = []
  const skipped: string[] = []
  for (const question of all) {
    try {
      const encoded = question.rows.map((row) => model.encode(row, { gate: true }))
      for (const row of encoded) checkLength(row, maxLength)
      rows.push(...encoded.map((row) => (bos ? withBos(row, model) : row)))
      questions.push(question)
    } catch (error) {
      const reason = `${question.where}: ${(error as Error).message}`
      if (!skipInvalid) throw new Error(`${reason} (--skip-invalid leaves such rows out)`)
      skipped.push(reason)
    }
  }
  if (questions.length === 0) throw new Error(`no row can be scored; the first: ${skipped[0]}`)
  return { questions, rows, skipped }
}

/**
 * The row with one more BOS: what a rendered template becomes that is tokenised once more with special tokens. RewardBench masks
 * it where there are two then; positions begin at 1, which rotary embeddings do not see, so that `masked` is the row itself.
 */
function withBos({ input_ids: ids, gate_position: gate }: EncodedRow, { name, tokenizer }: RewardModel): EncodedRow {
  const bos = tokenizer?.bos ?? null
  if (bos === null)
    throw new Error(`--double-bos attended needs a bos_token in tokenizer_config.json; ${name} has none`)
  const tokens = new Uint32Array(ids.length + 1)
  tokens[0] = bos
  tokens.set(ids, 1)
  return { input_ids: tokens, ...(gate !== undefined && { gate_position: gate + 1 }) }
}

const BATCH = 256

/**
 * Scores pairs of features by heads on a device. Throws, before any is computed, on another width, and on subsets that the suite does
 * not have.
 */
export async function scorePairFeatures(
  device: Device,
  heads: Heads,
  pairs: PairFile,
  { score, lambda, onProgress, signal }: PairFeatureOptions = {},
  suite: PairSuite = 'pairs',
): Promise<Scores> {
  const { columns } = pairs
  const named = (i: number) => ({ where: `${pairs.name}: pair ${i + 1}`, subset: pairs.subsets?.[i] ?? null })
  checkSubsets(
    Array.from({ length: pairs.pairs }, (_, i) => named(i)),
    suite,
  )
  if (heads.hidden !== columns) {
    throw new Error(`${pairs.name}: must have the ${heads.hidden} columns that the heads are for, got ${columns}`)
  }
  const questions: Scored[] = []
  const keys: bigint[] = []
  for (let first = 0; first < pairs.pairs; first += BATCH) {
    signal?.throwIfAborted()
    const rows = Array.from({ length: Math.min(BATCH, pairs.pairs - first) }, (_, i) => first + i)
    const sides = await pairs.readSides(rows)
    keys.push(...pairKeysOf(sides, columns))
    const prompts = heads.needsPrompt ? bothSides(await pairs.readPrompts(rows), rows.length, columns) : null
    const shape = [2 * rows.length, columns]
    const last = device.tensor(shape, { label: 'features', data: sides })
    const prompt = prompts && device.tensor(shape, { label: 'prompt features', data: prompts })
    try {
      const indices = rows.flatMap((row) => [row, row])
      const scores = await heads.score(last, prompt, { lambda, indices })
      for (const [b, row] of rows.entries()) {
        const own = [scores[2 * b], scores[2 * b + 1]].map((one) => point(one, heads, { score, lambda }))
        questions.push({ ...named(row), id: String(row), right: 1, scores: own })
      }
    } finally {
      last.destroy()
      prompt?.destroy()
    }
    onProgress?.(first + rows.length, pairs.pairs)
  }
  return { questions, skipped: [], keys }
}

/** Prompt states [B, 2, D], each twice where both sides share one. */
function bothSides(prompts: Float32Array, rows: number, columns: number): Float32Array {
  if (prompts.length === 2 * rows * columns) return prompts
  const all = new Float32Array(2 * rows * columns)
  for (let b = 0; b < rows; b++) {
    const state = prompts.subarray(b * columns, (b + 1) * columns)
    all.set(state, 2 * b * columns)
    all.set(state, (2 * b + 1) * columns)
  }
  return all
}
