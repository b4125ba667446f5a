// Merges an adapter into its base: a model directory in which every adapted map is W + scaling * B A, rounded once.
//
// The product and the sum are in float64; PEFT computes in F32 and may round twice. Afterwards the directory is read back: every
// tensor is computed once more from base and adapter and compared, and the report says what rounding has taken.
import { parseJsonObject, show } from '../files/json.ts'
import { type FloatDType, narrowF64 } from '../files/narrow.ts'
import { closeTensors, layOutSafetensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { type Adapter, type LoraWeights, readAdapter } from './adapter_files.ts'
import { parseLlamaConfig } from './config.ts'
import { type MergeItem, mergedConfig, mergeItems } from './merge_plan.ts'
import { findTensors } from './weights.ts'

export interface MergeOptions {
  /** Type of all floats; null (the default): every tensor keeps the type it has, and a score head is F32. */
  readonly dtype?: FloatDType | null
  /** Called before each tensor, of which there are `total`, once when it is written and once when it is checked. */
  readonly onTensor?: (done: number, total: number) => void
  /**
   * Compares what the merged model computes with what the base computes under the adapter, and gives the largest difference. It is
   * called once the tensors have been checked; what it throws makes the merge fail.
   */
  readonly compare?: (merged: ModelFiles, adapter: Adapter) => Promise<number>
}

/** What became of one linear map. */
export interface MergedTensor {
  readonly name: string
  readonly rank: number
  /** Largest |scaling * B A|. */
  readonly change: number
  /** Largest |stored - (W + scaling * B A)|. */
  readonly loss: number
  /** Root mean square of what rounding took, over that of the change; 0 where there is no change. */
  readonly lossShare: number
}

export interface MergeReport {
  /** The adapted maps in the order of the files. */
  readonly tensors: readonly MergedTensor[]
  /** The largest loss of all tensors, those that were only converted to another type included. */
  readonly largest: { readonly name: string; readonly loss: number }
  /** What `compare` gave; null without it. */
  readonly outputs: number | null
  /** Names of the files that were written, those of the tensors first and config.json last. */
  readonly files: readonly string[]
  /** Names of files of the base that were not taken over: its weights in other formats, adapters, a calibration. */
  readonly leftOut: readonly string[]
}

// Elements that are computed at a time: some MB, however large a tensor is.
const PIECE_ELEMENTS = 2 ** 18
const PIECE_BYTES = 4 * 2 ** 20
const CONFIG = 'config.json'
/**
 * Files of a model directory that would be wrong beside merged weights: other formats of the base's weights, adapters, which loaders
 * would apply once more, and a calibration, which holds for the states of the base.
 */
const STALE =
  /^(.*\.(safetensors|bin|pth|pt|ckpt|gguf|h5|msgpack|onnx|ot)|.*\.index\.json|adapter_config\.json|pinball-work\.json)$/

/**
 * Writes the merged model into a folder that the caller has made sure is empty or may be overwritten; config.json comes last, so that
 * what a crash leaves is no model. Throws as `readAdapter` and `findTensors` do, on a head over a model that has other heads, on
 * numbers that the type cannot hold, and where what was written is not what is read back.
 */
export async function mergeAdapter(
  base: ModelFiles,
  adapterFiles: ModelFiles,
  out: Store,
  options: MergeOptions = {},
): Promise<MergeReport> {
  const { dtype = null, onTensor = () => {}, compare } = options
  const where = `${base.name}/${CONFIG}`
  const text = await readText(base, CONFIG)
  if (text === null) throw new Error(`${where}: is missing; give the folder of a Llama checkpoint`)
  const json = parseJsonObject(text, where)
  const config = parseLlamaConfig(json, where)
  const tensors = await openModelTensors(base)
  try {
    const found = findTensors(tensors, config, base.name)
    const adapter = await readAdapter(adapterFiles, config)
    const shards = mergeItems(tensors, found, adapter, dtype, base.name)
    const total = 2 * shards.reduce((sum, { items }) => sum + items.length, 0)
    let done = 0
    const next = () => onTensor(done++, total)
    const files: string[] = []
    const write = async (file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) => {
      await out.write(file, chunks)
      files.push(file)
    }
    for (const { file, items } of shards) await write(file, encodeShard(items, next))
    if (shards.length > 1) await write('model.safetensors.index.json', [encodeIndex(shards)])
    const leftOut: string[] = []
    for (const file of (await base.list?.()) ?? []) {
      if (file === CONFIG || files.includes(file) || file.startsWith('.')) continue
      if (STALE.test(file)) leftOut.push(file)
      else await write(file, copied(base, file))
    }
    const changed = mergedConfig(json, adapter, dtype)
    await write(CONFIG, [new TextEncoder().encode(changed === null ? text : `${JSON.stringify(changed, null, 2)}\n`)])
    const checked = await check(
      out,
      shards.flatMap(({ items }) => items),
      next,
    )
    const outputs = compare ? await compare(out, adapter) : null
    return { ...checked, outputs, files, leftOut: leftOut.filter((file) => !isOwnWeight(file, tensors)) }
  } finally {
    await closeTensors(tensors)
  }
}

/** Whether a file is one that the tensors came from: they are in the model, in other files. */
function isOwnWeight(file: string, tensors: ReadonlyMap<string, TensorInfo>): boolean {
  if (file === 'model.safetensors.index.json') return true
  return [...tensors.values()].some(({ source }) => source.name.split(/[\\/]/).pop() === file)
}

async function* copied(base: ModelFiles, file: string): AsyncGenerator<Uint8Array> {
  const source = await base.open(file)
  if (source === null) throw new Error(`${base.name}/${file}: is gone`)
  try {
    for (let at = 0; at < source.byteLength; at += PIECE_BYTES)
      yield await source.read(at, Math.min(PIECE_BYTES, source.byteLength - at))
  } finally {
    await source.close()
  }
}

interface Shard {
  readonly file: string
  readonly items: readonly MergeItem[]
}

async function* encodeShard(items: readonly MergeItem[], next: () => void): AsyncGenerator<Uint8Array> {
  const { header, ordered } = layOutSafetensors(items, { format: 'pt' })
  yield header
  for (const item of ordered) {
    next()
    for await (const piece of pieces(item)) yield piece.bytes
  }
}

function encodeIndex(shards: readonly Shard[]): Uint8Array {
  const entries = shards.flatMap(({ file, items }) => items.map(({ name }) => [name, file] as const))
  const sizes = shards.flatMap(({ items }) => items.map(({ bytes }) => bytes))
  const index = {
    metadata: { total_size: sizes.reduce((sum, bytes) => sum + bytes, 0) },
    weight_map: Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1))),
  }
  return new TextEncoder().encode(`${JSON.stringify(index, null, 2)}\n`)
}

interface Piece {
  readonly bytes: Uint8Array
  /** The numbers before rounding; null where the bytes are the base's. */
  readonly exact: Float64Array | null
  /** What the adapter adds; null where it adds nothing. */
  readonly change: Float64Array | null
}

/** A tensor in pieces of whole rows, in order. */
async function* pieces(item: MergeItem): AsyncGenerator<Piece> {
  const { info, lora, score, dtype } = item
  if (score === null && lora === null && dtype === info!.dtype) {
    for (let at = info!.begin; at < info!.end; at += PIECE_BYTES) {
      const bytes = await info!.source.read(at, Math.min(PIECE_BYTES, info!.end - at))
      yield { bytes, exact: null, change: null }
    }
    return
  }
  const count = item.shape.reduce((product, length) => product * length, 1)
  const width = lora ? item.shape[1] : 1
  const step = Math.max(1, Math.floor(PIECE_ELEMENTS / width)) * width
  for (let at = 0; at < count; at += step) {
    const length = Math.min(step, count - at)
    const exact = score ? Float64Array.from(score.weight.subarray(at, at + length)) : await widened(info!, at, length)
    const change = lora ? product(lora, at / width, length / width, width) : null
    if (change) for (let i = 0; i < length; i++) exact[i] += change[i]
    const bad = exact.findIndex((value) => !fits(value, dtype as FloatDType))
    if (bad >= 0) {
      throw new Error(
        `${item.where}: ${exact[bad]} at element ${at + bad} cannot be held by ${dtype}; choose another --dtype, or see whether the file is damaged`,
      )
    }
    const values = narrowF64(exact, dtype as FloatDType)
    yield { bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength), exact, change }
  }
}

/** Above this a number is rounded to infinity. */
const LIMITS: Readonly<Record<FloatDType, number>> = {
  F32: (2 - 2 ** -24) * 2 ** 127,
  BF16: (2 - 2 ** -8) * 2 ** 127,
  F16: 65520,
}

const fits = (value: number, dtype: FloatDType): boolean => Math.abs(value) < LIMITS[dtype]

const BYTES: Readonly<Record<string, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2 }

/** Elements [at, at + length) of a tensor of floats. */
async function widened(info: TensorInfo, at: number, length: number): Promise<Float64Array> {
  const size = BYTES[info.dtype]
  return widenBytes(await info.source.read(info.begin + at * size, length * size), info.dtype)
}

function widenBytes(bytes: Uint8Array, dtype: string): Float64Array {
  const size = BYTES[dtype]
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const values = new Float64Array(bytes.byteLength / size)
  const word = new Uint32Array(1)
  const float = new Float32Array(word.buffer)
  for (let i = 0; i < values.length; i++) {
    if (dtype === 'F64') values[i] = view.getFloat64(8 * i, true)
    else if (dtype === 'F32') values[i] = view.getFloat32(4 * i, true)
    else if (dtype === 'BF16') {
      word[0] = view.getUint16(2 * i, true) << 16
      values[i] = float[0]
    } else values[i] = widenHalf(view.getUint16(2 * i, true))
  }
  return values
}

function widenHalf(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023]
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25)
  const value = exponent < 31 ? size : fraction === 0 ? Infinity : Number.NaN
  return bits & 0x8000 ? -value : value
}

/** Rows [begin, begin + rows) of scaling * B A, of I columns. */
function product({ rank, scaling, a, b }: LoraWeights, begin: number, rows: number, I: number): Float64Array {
  const sums = new Float64Array(rows * I)
  for (let row = 0; row < rows; row++) {
    const own = sums.subarray(row * I, (row + 1) * I)
    for (let k = 0; k < rank; k++) {
      const factor = b[(begin + row) * rank + k]
      if (factor === 0) continue
      const right = a.subarray(k * I, (k + 1) * I)
      for (let i = 0; i < I; i++) own[i] += factor * right[i]
    }
    for (let i = 0; i < I; i++) own[i] *= scaling
  }
  return sums
}

/** Reads the written tensors back, compares them bit for bit with what they must be, and measures what rounding took. */
async function check(
  out: ModelFiles,
  items: readonly MergeItem[],
  next: () => void,
): Promise<Pick<MergeReport, 'tensors' | 'largest'>> {
  const written = await openModelTensors(out)
  try {
    if (written.size !== items.length) {
      throw new Error(
        `${out.name}: holds ${written.size} tensors, ${items.length} were written; is another process writing there?`,
      )
    }
    const tensors: MergedTensor[] = []
    let largest = { name: '', loss: 0 }
    for (const item of items) {
      next()
      const info = written.get(item.name)
      let at = info?.begin ?? 0
      const sums = { change: 0, loss: 0, squares: 0, lost: 0 }
      for await (const { bytes, exact, change } of pieces(item)) {
        const found = info && at + bytes.length <= info.end ? await info.source.read(at, bytes.length) : null
        if (found === null || !same(found, bytes)) {
          throw new Error(
            `${out.name}: tensor ${show(item.name)} is not what was written; the disk is damaged or another process writes there`,
          )
        }
        at += bytes.length
        if (exact) measure(sums, widenBytes(found, item.dtype), exact, change)
      }
      const { change, loss, squares, lost } = sums
      if (loss > largest.loss || largest.name === '') largest = { name: item.name, loss }
      const lossShare = squares > 0 ? Math.sqrt(lost / squares) : 0
      if (item.lora) tensors.push({ name: item.name, rank: item.lora.rank, change, loss, lossShare })
    }
    return { tensors, largest }
  } finally {
    await closeTensors(written)
  }
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return a.length === b.length
}

function measure(
  sums: { change: number; loss: number; squares: number; lost: number },
  stored: Float64Array,
  exact: Float64Array,
  change: Float64Array | null,
): void {
  for (let i = 0; i < stored.length; i++) {
    const loss = Math.abs(stored[i] - exact[i])
    sums.loss = Math.max(sums.loss, loss)
    sums.lost += loss * loss
    if (!change) continue
    sums.change = Math.max(sums.change, Math.abs(change[i]))
    sums.squares += change[i] * change[i]
  }
}
