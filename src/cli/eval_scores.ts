// Scores for an evaluation: from rows by a model, or from features by its heads alone.
import type { Device } from '../device/device.ts'
import { openDevice } from '../device/open.ts'
import { openDirectory } from '../files/disk.ts'
import type { ModelFiles } from '../files/source.ts'
import { type HeadScore, loadHeads } from '../reward/heads.ts'
import { loadRewardModel, type RewardModel } from '../reward/model.ts'
import { openPairs } from '../reward/pair_file.ts'
import type { EncodedRow } from '../reward/rows.ts'
import { pointScore, type ScoreKind } from '../reward/scoring.ts'
import { withModel } from './engine.ts'
import type { Question } from './eval_rows.ts'
import { listFeatureFiles, openFiles } from './feature_files.ts'
import { type DeviceChoice, EMBEDDED, embeddedModel, type HeadChoice, headSettings } from './options.ts'
import { startProgress, startRows } from './progress.ts'

export type DoubleBos = 'off' | 'masked' | 'attended'

export interface ScoringOptions extends DeviceChoice, HeadChoice {
  readonly score: ScoreKind
  readonly lambda?: number
  readonly doubleBos: DoubleBos
  readonly skipInvalid?: boolean
  readonly share: boolean
}

/** A scored question: the scores of its answers in order. */
export interface Scored {
  /** What errors call it. */
  readonly where: string
  readonly subset: string | null
  readonly id: string | null
  readonly right: number
  readonly scores: readonly number[]
}

export interface Scores {
  readonly model: string
  readonly device: string
  readonly questions: readonly Scored[]
  /** Why questions were left out. */
  readonly skipped: readonly string[]
}

/** Scores all answers of the questions by the model of `options`; with `skipInvalid` without those that cannot be encoded. */
export function scoreQuestions(all: readonly Question[], options: ScoringOptions): Promise<Scores> {
  return withModel(options, loader(options), async (model, device, compute) => {
    const { questions, rows, skipped } = encodeQuestions(model, all, options)
    const progress = startRows()
    try {
      const { lambda, share } = options
      const found = await compute(() => model.score(rows, { lambda, share, onProgress: progress.update }))
      const points = found.map((score) => point(score, model, options))
      let at = 0
      const scored = questions.map(({ where, subset, id, right, rows: own }) => {
        const scores = points.slice(at, at + own.length)
        at += own.length
        return { where, subset, id, right, scores }
      })
      return { model: model.name, device: device.name, questions: scored, skipped }
    } finally {
      progress.end()
    }
  })
}

export const loader = (options: HeadChoice) => (device: Device, files: ModelFiles) =>
  loadRewardModel(device, files, headSettings(options))

function point(
  score: HeadScore,
  { levels, lambda: usual }: { levels: readonly number[]; lambda: number },
  options: ScoringOptions,
) {
  return pointScore(options.score, score, levels, options.lambda ?? usual)
}

function encodeQuestions(
  model: RewardModel,
  all: readonly Question[],
  { doubleBos, skipInvalid }: ScoringOptions,
): { readonly questions: Question[]; readonly rows: EncodedRow[]; readonly skipped: string[] } {
  const questions: Question[] = []
  const rows: EncodedRow[] = []
  const skipped: string[] = []
  for (const question of all) {
    try {
      const encoded = question.rows.map((row) => model.encode(row, { gate: true }))
      rows.push(...encoded.map((row) => (doubleBos === 'attended' ? withBos(row, model) : row)))
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

/** Scores pairs of features by the heads of the model directory of `options`; `check` sees their subsets before any is computed. */
export async function scorePairFeatures(
  paths: readonly string[],
  options: ScoringOptions,
  check: (subsets: readonly (string | null)[]) => void = () => {},
): Promise<Scores> {
  const folder = options.model ?? embeddedModel()
  const files = await openDirectory(folder)
  const pairs = await openPairs(await openFiles(await listFeatureFiles(paths)))
  try {
    check(pairs.subsets ?? new Array<null>(pairs.pairs).fill(null))
    const device = await openDevice(options.device, { threads: options.threads })
    const progress = startProgress('pairs')
    try {
      const heads = await loadHeads(device, files, headSettings(options))
      const { columns } = pairs
      if (heads.hidden !== columns) {
        throw new Error(
          `${pairs.name}: must have the ${heads.hidden} columns that the heads of ${folder} are for, got ${columns}`,
        )
      }
      const scored: Scored[] = []
      for (let first = 0; first < pairs.pairs; first += BATCH) {
        const rows = Array.from({ length: Math.min(BATCH, pairs.pairs - first) }, (_, i) => first + i)
        const sides = await pairs.readSides(rows)
        const prompts = heads.needsPrompt ? bothSides(await pairs.readPrompts(rows), rows.length, columns) : null
        const shape = [2 * rows.length, columns]
        const last = device.tensor(shape, { label: 'features', data: sides })
        const prompt = prompts && device.tensor(shape, { label: 'prompt features', data: prompts })
        try {
          const indices = rows.flatMap((row) => [row, row])
          const scores = await heads.score(last, prompt, { lambda: options.lambda, indices })
          for (const [b, row] of rows.entries()) {
            const own = [scores[2 * b], scores[2 * b + 1]].map((score) => point(score, heads, options))
            const where = `${pairs.name}: pair ${row + 1}`
            scored.push({ where, subset: pairs.subsets?.[row] ?? null, id: String(row), right: 1, scores: own })
          }
        } finally {
          last.destroy()
          prompt?.destroy()
        }
        progress.update(first + rows.length, pairs.pairs)
      }
      heads.destroy()
      return { model: options.model ?? EMBEDDED, device: device.name, questions: scored, skipped: [] }
    } finally {
      progress.end()
      await device.destroy()
    }
  } finally {
    await pairs.close()
  }
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
