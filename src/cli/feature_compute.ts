// Features of the rows of a shard, chunk by chunk, and the file that they are put together to.
import { createHash } from 'node:crypto'
import { writeFileAtomic } from '../files/disk.ts'
import { layOutSafetensors, narrowBF16, type TensorData } from '../files/safetensors.ts'
import type { FeatureModel } from '../reward/features.ts'
import type { EncodedRow } from '../reward/rows.ts'
import type { Compute } from './engine.ts'
import { hashed } from './feature_manifest.ts'
import type { Chunk, ChunkTensor, PartialFeatures } from './feature_partial.ts'
import type { EncodedTaken } from './feature_rows.ts'
import { startRows } from './progress.ts'

/** What of the rows is stored, and how. */
export interface FeatureLayout {
  readonly pairs: boolean
  readonly dtype: 'f32' | 'bf16'
  /** Which sides of a row have states of the gate in the file. */
  readonly prompts: 0 | 1 | 2
  /** Names of the labels [M]. */
  readonly labels: readonly string[]
  readonly weights: boolean
}

/** The states of the gate that pairs need: both, where the prompts of one pair are not the same tokens. */
export function promptSides(rows: readonly EncodedTaken[], pairs: boolean, gate: boolean): 0 | 1 | 2 {
  if (!pairs) return gate ? 1 : 0
  return rows.some(({ sides: [chosen, rejected] }) => !samePrompt(chosen, rejected)) ? 2 : 1
}

/** The tokens up to the one that the gate reads. */
function promptTokens({ input_ids, gate_position }: EncodedRow): Uint32Array {
  return input_ids.subarray(0, gate_position! + 1)
}

function samePrompt(one: EncodedRow, other: EncodedRow): boolean {
  const [a, b] = [promptTokens(one), promptTokens(other)]
  return a.length === b.length && a.every((token, i) => token === b[i])
}

/** The tensors that chunks hold. */
export function chunkTensors({ pairs, dtype, prompts }: FeatureLayout, columns: number): ChunkTensor[] {
  const type = dtype === 'bf16' ? 'BF16' : 'F32'
  const tensors: ChunkTensor[] = [{ name: 'embeddings', dtype: type, shape: pairs ? [2, columns] : [columns] }]
  if (prompts > 0) {
    tensors.push({ name: 'prompt_embeddings', dtype: type, shape: prompts === 2 ? [2, columns] : [columns] })
  }
  return tensors
}

/** How much was computed, and how fast. */
export interface Computed {
  readonly rows: number
  readonly tokens: number
  readonly ms: number
}

/** Computes the chunks that are not finished. */
export async function computeChunks(
  model: FeatureModel,
  compute: Compute,
  rows: readonly EncodedTaken[],
  chunks: readonly Chunk[],
  partial: PartialFeatures,
  layout: FeatureLayout,
  share: boolean,
): Promise<Computed> {
  const of = (which: readonly Chunk[], key: 'count' | 'tokens') => which.reduce((sum, chunk) => sum + chunk[key], 0)
  const missing = chunks.filter((_, i) => !partial.has(i))
  const totals = { rows: of(chunks, 'count'), totalTokens: of(chunks, 'tokens') }
  const before = { done: totals.rows - of(missing, 'count'), tokens: totals.totalTokens - of(missing, 'tokens') }
  const here = { ...before }
  const start = performance.now()
  const progress = startRows(before)
  try {
    for (const chunk of missing) {
      const taken = rows.slice(chunk.first, chunk.first + chunk.count)
      const perRow = layout.pairs ? 2 : 1
      const found = await compute(() =>
        model.features(
          taken.flatMap((row) => row.sides),
          {
            gate: layout.prompts > 0,
            share,
            nameRow: (row) => taken[Math.floor(row / perRow)].where,
            onProgress: ({ done, tokens }) =>
              progress.update({ done: here.done + Math.floor(done / perRow), tokens: here.tokens + tokens, ...totals }),
          },
        ),
      )
      const data = [found.embeddings]
      if (found.promptEmbeddings) data.push(promptStates(found.promptEmbeddings, taken, layout))
      await partial.write(chunks.indexOf(chunk), layout.dtype === 'bf16' ? data.map(narrowBF16) : data)
      here.done += chunk.count
      here.tokens += chunk.tokens
    }
  } finally {
    progress.end()
  }
  return { rows: of(missing, 'count'), tokens: of(missing, 'tokens'), ms: performance.now() - start }
}

/** The gate's states as they are stored: of a pair with one prompt that of the chosen side, also where two are stored. */
function promptStates(states: Float32Array, taken: readonly EncodedTaken[], layout: FeatureLayout): Float32Array {
  if (!layout.pairs) return states
  const columns = states.length / (2 * taken.length)
  const stored = new Float32Array(taken.length * layout.prompts * columns)
  for (const [i, { sides }] of taken.entries()) {
    for (let side = 0; side < layout.prompts; side++) {
      const own = side === 1 && !samePrompt(sides[0], sides[1]) ? 1 : 0
      const from = (2 * i + own) * columns
      stored.set(states.subarray(from, from + columns), (i * layout.prompts + side) * columns)
    }
  }
  return stored
}

/** Puts the file together from the chunks and what else belongs to the rows; never more than one chunk is in memory. */
export async function writeFeatures(
  out: string,
  rows: readonly EncodedTaken[],
  columns: number,
  partial: PartialFeatures,
  layout: FeatureLayout,
  metadata: Record<string, string>,
): Promise<{ bytes: number; sha256: string; labels: number }> {
  const own = layout.pairs ? pairTensors(rows) : labelTensors(rows, layout)
  const tensors = [
    ...chunkTensors(layout, columns).map((tensor) => ({
      ...tensor,
      shape: [rows.length, ...tensor.shape],
      data: null,
    })),
    ...own.tensors,
  ]
  const { header, ordered } = layOutSafetensors(tensors, { ...metadata, ...own.metadata })
  async function* bytes() {
    yield header
    for (const { name, data } of ordered) {
      if (data === null) yield* partial.read(name)
      else yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    }
  }
  const written = hashed(bytes())
  await writeFileAtomic(out, written.chunks)
  return { ...written.result(), labels: own.labels }
}

interface Own {
  readonly tensors: TensorData[]
  readonly metadata: Record<string, string>
  /** Lines of labels. */
  readonly labels: number
}

function labelTensors(rows: readonly EncodedTaken[], { labels: names, weights }: FeatureLayout): Own {
  if (names.length === 0) return { tensors: [], metadata: {}, labels: 0 }
  const lines = rows.flatMap((row) => row.labels)
  const tensors: TensorData[] = [
    { name: 'labels', dtype: 'F32', shape: [lines.length, names.length], data: Float32Array.from(lines.flat()) },
  ]
  if (rows.some((row) => row.labels.length > 1)) {
    const data = BigInt64Array.from(rows.flatMap((row, n) => row.labels.map(() => BigInt(n))))
    tensors.push({ name: 'label_rows', dtype: 'I64', shape: [lines.length], data })
  }
  if (weights) {
    const data = Float32Array.from(rows.flatMap((row) => row.weights!))
    tensors.push({ name: 'label_weights', dtype: 'F32', shape: [lines.length], data })
  }
  return { tensors, metadata: { attributes: JSON.stringify(names) }, labels: lines.length }
}

function pairTensors(rows: readonly EncodedTaken[]): Own {
  const prompts = BigInt64Array.from(rows, ({ sides: [chosen] }) => promptId(promptTokens(chosen)))
  const tensors: TensorData[] = [{ name: 'prompt_ids', dtype: 'I64', shape: [rows.length], data: prompts }]
  const subsets = [...new Set(rows.flatMap((row) => row.subset ?? []))]
  if (subsets.length === 0) return { tensors, metadata: {}, labels: 0 }
  const places = new Map(subsets.map((name, i) => [name, BigInt(i)]))
  const data = BigInt64Array.from(rows, (row) => places.get(row.subset!)!)
  tensors.push({ name: 'subset_ids', dtype: 'I64', shape: [rows.length], data })
  return { tensors, metadata: { subsets: JSON.stringify(subsets) }, labels: 0 }
}

/** The first 53 bits of the SHA-256 of the tokens, so that programs whose numbers are doubles hold it as well. */
function promptId(tokens: Uint32Array): bigint {
  const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
  return createHash('sha256').update(bytes).digest().readBigUInt64BE(0) >> 11n
}
