// The tensors of a file of features: states of the rows, chunk by chunk, and what belongs to the rows as a whole.
import { narrowBF16, type TensorData } from '../../files/safetensors.ts'
import { Sha256 } from '../../files/sha256.ts'
import type { Features } from '../features.ts'
import type { EncodedRow } from '../rows.ts'
import type { FeatureRow, FeatureRows } from './rows.ts'

/** How features are stored. */
export type FeatureDType = 'f32' | 'bf16'

/** A tensor of states [N, ...shape]. */
export interface StateTensor {
  readonly name: 'embeddings' | 'prompt_embeddings'
  readonly dtype: 'F32' | 'BF16'
  /** Of one row: [D], or [2, D] where each side of a pair has its own. */
  readonly shape: readonly number[]
  /** Bytes of one row. */
  readonly rowBytes: number
}

/** The tensors of states that rows need: of pairs always those of the gate too, [2, D] where the prompts of some pair differ. */
export function stateTensors(
  { kind, rows }: FeatureRows<EncodedRow>,
  { gate, dtype, columns }: { readonly gate: boolean; readonly dtype: FeatureDType; readonly columns: number },
): StateTensor[] {
  const pairs = kind === 'pairs'
  const tensor = (name: StateTensor['name'], sides: number): StateTensor => ({
    name,
    dtype: dtype === 'bf16' ? 'BF16' : 'F32',
    shape: sides === 2 ? [2, columns] : [columns],
    rowBytes: sides * columns * (dtype === 'bf16' ? 2 : 4),
  })
  if (!pairs && !gate) return [tensor('embeddings', 1)]
  const differ = pairs && rows.some(({ sides: [chosen, rejected] }) => !samePrompt(chosen, rejected))
  return [tensor('embeddings', pairs ? 2 : 1), tensor('prompt_embeddings', differ ? 2 : 1)]
}

/** The tokens up to the one that the gate reads. */
function promptTokens({ input_ids, gate_position }: EncodedRow): Uint32Array {
  return input_ids.subarray(0, gate_position! + 1)
}

function samePrompt(one: EncodedRow, other: EncodedRow): boolean {
  const [a, b] = [promptTokens(one), promptTokens(other)]
  return a.length === b.length && a.every((token, i) => token === b[i])
}

/** The bytes of some rows' states, tensor after tensor. `found` are the features of all sides of the rows. */
export function encodeStates(
  tensors: readonly StateTensor[],
  rows: readonly FeatureRow<EncodedRow>[],
  found: Features,
): Uint8Array[] {
  return tensors.map(({ name, dtype, shape }) => {
    const states = name === 'embeddings' ? found.embeddings : promptStates(found.promptEmbeddings!, rows, shape)
    const stored = dtype === 'BF16' ? narrowBF16(states) : states
    return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength)
  })
}

/** The gate's states as they are stored: of a pair with one prompt that of the chosen side, also where two are stored. */
function promptStates(
  states: Float32Array,
  rows: readonly FeatureRow<EncodedRow>[],
  shape: readonly number[],
): Float32Array {
  if (rows[0].sides.length === 1) return states
  const [sides, columns] = shape.length === 2 ? shape : [1, shape[0]]
  const stored = new Float32Array(rows.length * sides * columns)
  for (let at = 0, i = 0; i < rows.length; i++) {
    const [chosen, rejected] = rows[i].sides
    for (let side = 0; side < sides; side++, at += columns) {
      const from = side === 1 && !samePrompt(chosen, rejected) ? 1 : 0
      stored.set(states.subarray((2 * i + from) * columns, (2 * i + from + 1) * columns), at)
    }
  }
  return stored
}

/** What a file holds beside the states: labels of ratings, prompts and subsets of pairs. */
export interface RowTensors {
  readonly tensors: readonly TensorData[]
  readonly metadata: Readonly<Record<string, string>>
  /** Number of lines of labels. */
  readonly labels: number
}

/** The tensors that say what the rows are. */
export function rowTensors(rows: FeatureRows<EncodedRow>): RowTensors {
  return rows.kind === 'pairs' ? pairTensors(rows.rows) : labelTensors(rows)
}

function labelTensors({ rows, labels: names, weights }: FeatureRows<EncodedRow>): RowTensors {
  if (names.length === 0) return { tensors: [], metadata: {}, labels: 0 }
  const lines = rows.flatMap((row) => row.labels)
  const tensors: TensorData[] = [
    { name: 'labels', dtype: 'F32', shape: [lines.length, names.length], data: Float32Array.from(lines.flat()) },
  ]
  if (rows.some((row) => row.labels.length > 1)) {
    const data = BigInt64Array.from(rows.flatMap((row, n) => row.labels.map(() => BigInt(n))))
    tensors.push({ name: 'label_rows', dtype: 'I64', shape: [lines.length], data })
  }
  if (weights !== null) {
    const data = Float32Array.from(rows.flatMap((row) => row.weights!))
    tensors.push({ name: 'label_weights', dtype: 'F32', shape: [lines.length], data })
  }
  return { tensors, metadata: { attributes: JSON.stringify(names) }, labels: lines.length }
}

function pairTensors(rows: readonly FeatureRow<EncodedRow>[]): RowTensors {
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
  const hash = new Sha256().update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)).digest()
  return new DataView(hash.buffer).getBigUint64(0) >> 11n
}
