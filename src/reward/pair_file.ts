// Pairs of a chosen and a rejected response as features, in one safetensors file or several that are read as one.
//
//   embeddings         [N, 2, D]            state at the last token; index 0 is the chosen response, 1 the rejected one
//   prompt_embeddings  [N, D] or [N, 2, D]  state that the gate reads
//   prompt_ids         [N] I64, optional    equal for pairs with the same prompt
//   subset_ids         [N] I64, optional    position in the list `subsets` of the metadata
//
// Source: what the ArmoRM scripts write (stage-2_prepare.py: the first two, both [N, 2, D]) and `pinball features` from pairs.
// Rows are read by their ranges, never a file as a whole.
import { mix32 } from '../data/scramble.ts'
import { sampleHash } from '../files/hash.ts'
import { parseJson, show } from '../files/json.ts'
import { openSafetensors, type Safetensors, type TensorInfo, widenBF16, widenF16 } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import { checkAlike } from './alike.ts'

export interface PairFile {
  /** What errors call it: the file, or the first of several. */
  readonly name: string
  /** N */
  readonly pairs: number
  /** D */
  readonly columns: number
  /** Of the model that made the features; null where no file says. */
  readonly fingerprint: string | null
  /** Pairs with the same prompt share a number [N]; numbers count from 0 in the order of their first pair. */
  readonly groups: Uint32Array
  /** Name of each pair's subset [N]; null where the files have none. */
  readonly subsets: readonly string[] | null
  /** Whether there are states for the gate. */
  readonly hasPrompts: boolean
  /** Whether some pair has two prompt states that are not the same bits. */
  readonly sidesDiffer: boolean
  /** SHA-256 of each file, of large ones of a sample: what identifies the features to work that goes on. */
  hashes(): Promise<string[]>
  /** States of both responses [B, 2, D], in the beginning of `into` where it is given. Throws where one is not finite. */
  readSides(rows: ArrayLike<number>, into?: Float32Array): Promise<Float32Array>
  /** Prompt states [B, D], or [B, 2, D] where `sidesDiffer`. Throws where one is not finite, or there are none. */
  readPrompts(rows: ArrayLike<number>, into?: Float32Array): Promise<Float32Array>
}

type FloatType = 'F32' | 'BF16' | 'F16'

/** A tensor of states as it lies in a file. */
interface States {
  readonly info: TensorInfo
  readonly dtype: FloatType
  /** 1 for [N, D], 2 for [N, 2, D]. */
  readonly sides: 1 | 2
  readonly width: number
}

interface Part {
  readonly source: Source
  readonly opened: Safetensors
  /** Number of its first pair among those of all files. */
  readonly first: number
  readonly pairs: number
  readonly embeddings: States
  readonly prompts: States | null
}

/**
 * Opens files of pairs as one, in the order given. Where files have two prompt states a pair, those of the whole file are compared,
 * and where there are no prompt_ids the bytes of the chosen side's state tell prompts apart, so the file is read once. The
 * sources stay the caller's to close, when nothing is read any more. Throws on tensors that are missing or of another shape or type,
 * and on files that do not go together.
 */
export async function openPairs(sources: readonly Source[]): Promise<PairFile> {
  if (sources.length === 0) throw new Error('pairs: at least one file is needed, got none')
  const parts: Part[] = []
  for (const source of sources) {
    const before = parts[parts.length - 1]
    parts.push(await openPart(source, before ? before.first + before.pairs : 0))
  }
  const [{ source, embeddings }] = parts
  checkTogether(parts)
  const { groups, sidesDiffer } = await groupPairs(parts)
  const last = parts[parts.length - 1]
  const pairs = last.first + last.pairs
  if (pairs === 0) throw new Error(`${source.name}: has no pairs`)
  const columns = embeddings.width
  return {
    name: source.name,
    pairs,
    columns,
    fingerprint: parts.map(({ opened }) => opened.metadata.fingerprint).find((text) => text !== undefined) ?? null,
    groups,
    subsets: await readSubsets(parts),
    hasPrompts: parts[0].prompts !== null,
    sidesDiffer,
    readSides: (rows, into = new Float32Array(rows.length * 2 * columns)) =>
      readRows(parts, rows, 2, into, (part) => part.embeddings),
    async readPrompts(rows, into) {
      const sides = sidesDiffer ? 2 : 1
      const to = into ?? new Float32Array(rows.length * sides * columns)
      return readRows(parts, rows, sides, to, ({ prompts }) => {
        if (prompts === null) throw new Error(`${source.name}: has no tensor "prompt_embeddings", which a gate needs`)
        return prompts
      })
    },
    async hashes() {
      const found: string[] = []
      for (const each of sources) found.push(await sampleHash(each))
      return found
    },
  }
}

async function openPart(source: Source, first: number): Promise<Part> {
  const opened = await openSafetensors(source)
  const info = opened.tensors.get('embeddings')
  if (info === undefined) {
    throw new Error(
      `${source.name}: has no tensor "embeddings"; make the file with "pinball features" from rows with "chosen" and "rejected"`,
    )
  }
  const pairs = info.shape[0]
  if (info.shape.length !== 3 || info.shape[1] !== 2 || info.shape[2] === 0) {
    throw new Error(
      `${source.name}: embeddings must be [N, 2, D], the chosen response before the rejected one, got ${show(info.shape)}`,
    )
  }
  const width = info.shape[2]
  const prompt = opened.tensors.get('prompt_embeddings')
  if (prompt && show(prompt.shape) !== show([pairs, 2, width]) && show(prompt.shape) !== show([pairs, width])) {
    throw new Error(
      `${source.name}: prompt_embeddings must be [${pairs}, ${width}] or [${pairs}, 2, ${width}], as embeddings are, got ${show(prompt.shape)}`,
    )
  }
  return {
    source,
    opened,
    first,
    pairs,
    embeddings: states(info, 2, width),
    prompts: prompt ? states(prompt, prompt.shape.length === 3 ? 2 : 1, width) : null,
  }
}

function states(info: TensorInfo, sides: 1 | 2, width: number): States {
  const { dtype, source, name } = info
  if (dtype !== 'F32' && dtype !== 'BF16' && dtype !== 'F16') {
    throw new Error(`${source.name}: ${name} must be F32, BF16 or F16, got ${dtype}`)
  }
  return { info, dtype, sides, width }
}

function checkTogether(parts: readonly Part[]): void {
  const [one] = parts
  for (const other of parts) {
    const [a, b] = [one.source.name, other.source.name]
    const [before, now] = [one.embeddings.width, other.embeddings.width]
    if (now !== before) throw new Error(`${b}: features must be of ${before} columns, as those of ${a} are, got ${now}`)
    checkAlike(one, other, ['prompt_embeddings', 'prompt_ids', 'subset_ids'])
  }
}

/** Reads a tensor of whole numbers [N]. */
async function readIds({ source, opened, pairs }: Part, name: string): Promise<BigInt64Array | null> {
  const info = opened.tensors.get(name)
  if (info === undefined) return null
  if (info.dtype !== 'I64' || show(info.shape) !== show([pairs])) {
    throw new Error(`${source.name}: ${name} must be I64 [${pairs}], got ${info.dtype} ${show(info.shape)}`)
  }
  return new BigInt64Array((await source.read(info.begin, info.end - info.begin)).buffer)
}

async function readSubsets(parts: readonly Part[]): Promise<string[] | null> {
  const subsets: string[] = []
  for (const part of parts) {
    const ids = await readIds(part, 'subset_ids')
    if (ids === null) return null
    const { source, opened } = part
    const names = parseJson(opened.metadata.subsets ?? 'null', `${source.name}: subsets in the metadata`)
    if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) {
      throw new Error(`${source.name}: subsets in the metadata must be a list of names, got ${show(names)}`)
    }
    for (const [i, id] of ids.entries()) {
      if (id < 0n || id >= BigInt(names.length)) {
        throw new Error(`${source.name}: subset_ids must be below the ${names.length} subsets, pair ${i} has ${id}`)
      }
      subsets.push(names[Number(id)])
    }
  }
  return subsets
}

// Bytes that are read from a file at a time.
const PIECE_BYTES = 2 ** 20

/** Numbers the prompts, and finds out whether the two prompt states of a pair ever differ. */
async function groupPairs(parts: readonly Part[]): Promise<Pick<PairFile, 'groups' | 'sidesDiffer'>> {
  const numbers = new Map<number | bigint, number>()
  const groups: number[] = []
  const add = (key: number | bigint) => {
    const known = numbers.get(key) ?? numbers.size
    if (known === numbers.size) numbers.set(key, known)
    groups.push(known)
  }
  let sidesDiffer = false
  for (const part of parts) {
    const ids = await readIds(part, 'prompt_ids')
    for (const id of ids ?? []) add(id)
    const { prompts, pairs } = part
    // Without anything that tells prompts apart, each pair counts as one of its own.
    if (prompts === null && ids === null) for (let i = 0; i < pairs; i++) add(part.first + i)
    if (prompts === null || (ids !== null && (prompts.sides === 1 || sidesDiffer))) continue
    for await (const words of rowWords(prompts, pairs)) {
      const length = words.length / prompts.sides
      if (ids === null) add(hashWords(words, length))
      if (prompts.sides === 1 || sidesDiffer) continue
      for (let i = 0; i < length && !sidesDiffer; i++) sidesDiffer = words[i] !== words[length + i]
      if (sidesDiffer && ids !== null) break
    }
  }
  return { groups: Uint32Array.from(groups), sidesDiffer }
}

/** The bits of each row of states, in words of 32 bits where a side has whole ones, else of 16. */
async function* rowWords({ info, sides }: States, rows: number): AsyncGenerator<Uint32Array | Uint16Array> {
  const { source, begin, end } = info
  const rowBytes = (end - begin) / rows
  const many = Math.max(1, Math.floor(PIECE_BYTES / rowBytes))
  const buffer = new Uint8Array(many * rowBytes)
  for (let row = 0; row < rows; row += many) {
    const count = Math.min(many, rows - row)
    const bytes = (await source.read(begin + row * rowBytes, count * rowBytes, buffer)).buffer
    for (let i = 0; i < count; i++) {
      if ((rowBytes / sides) % 4 === 0) yield new Uint32Array(bytes, i * rowBytes, rowBytes / 4)
      else yield new Uint16Array(bytes, i * rowBytes, rowBytes / 2)
    }
  }
}

/** A hash of 53 bits of the first words: among a million prompts two are taken for one with a chance of 1 in 10,000. */
function hashWords(words: Uint32Array | Uint16Array, length: number): number {
  let [a, b] = [0x243f6a88, 0x13198a2e] // digits of pi
  for (let i = 0; i < length; i++) {
    a = Math.imul(a ^ words[i], 0x01000193)
    a ^= a >>> 15
    b = Math.imul(b ^ words[i], 0x85ebca6b)
    b ^= b >>> 13
  }
  return mix32(a) * 2 ** 21 + (mix32(b) >>> 11)
}

// Rows of a batch lie anywhere in the file, so that several reads wait at a time.
const LANES = 4

/** Reads rows as float32 [B, sides, D]; a state that is stored once fills both sides, of two only the first may be wanted. */
async function readRows(
  parts: readonly Part[],
  rows: ArrayLike<number>,
  sides: 1 | 2,
  into: Float32Array,
  choose: (part: Part) => States,
): Promise<Float32Array> {
  const size = rows.length * sides * parts[0].embeddings.width
  if (into.length < size) throw new RangeError(`pairs: ${rows.length} rows need ${size} elements, got ${into.length}`)
  const to = into.subarray(0, size)
  const runs = findRuns(parts, rows, choose)
  const longest = runs.reduce((most, run) => Math.max(most, run.count * run.rowBytes), 0)
  let next = 0
  const lane = async () => {
    const buffer = new Uint8Array(longest)
    while (next < runs.length) await readRun(runs[next++], buffer, sides, to)
  }
  await Promise.all(Array.from({ length: Math.min(LANES, runs.length) }, lane))
  return to
}

/** Groups rows into runs that lie side by side in a file. */
function findRuns(parts: readonly Part[], rows: ArrayLike<number>, choose: (part: Part) => States): Run[] {
  const order = Array.from({ length: rows.length }, (_, i) => i).sort((i, j) => rows[i] - rows[j])
  const last = parts[parts.length - 1]
  const runs: Run[] = []
  let p = 0
  for (const i of order) {
    const row = rows[i]
    if (!(Number.isInteger(row) && row >= 0 && row < last.first + last.pairs)) {
      throw new RangeError(`pairs: rows must be below ${last.first + last.pairs}, got ${row}`)
    }
    while (row >= parts[p].first + parts[p].pairs) p++
    const part = parts[p]
    const run = runs[runs.length - 1]
    if (run?.part === part && row === run.first + run.count && (run.count + 1) * run.rowBytes <= PIECE_BYTES) {
      run.count++
    } else if (!(run?.part === part && row < run.first + run.count)) {
      const states = choose(part)
      const rowBytes = (states.info.end - states.info.begin) / part.pairs
      runs.push({ part, states, rowBytes, first: row, count: 1, wanted: [] })
    }
    runs[runs.length - 1].wanted.push(i, row)
  }
  return runs
}

/** Rows [first, first + count) of a part; `wanted` holds pairs of a place in the result and a row. */
interface Run {
  readonly part: Part
  readonly states: States
  readonly rowBytes: number
  readonly first: number
  count: number
  readonly wanted: number[]
}

async function readRun(
  { part, states, rowBytes, first, count, wanted }: Run,
  into: Uint8Array<ArrayBuffer>,
  sides: 1 | 2,
  to: Float32Array,
): Promise<void> {
  const { info, width } = states
  const at = info.begin + (first - part.first) * rowBytes
  const unwanted = sides < states.sides ? rowBytes / 2 : 0
  const { buffer } = await part.source.read(at, count * rowBytes - unwanted, into)
  for (let w = 0; w < wanted.length; w += 2) {
    const [i, row] = [wanted[w], wanted[w + 1]]
    for (let side = 0; side < sides; side++) {
      const from = (row - first) * rowBytes + Math.min(side, states.sides - 1) * (rowBytes / states.sides)
      const target = to.subarray((i * sides + side) * width, (i * sides + side + 1) * width)
      widen(states.dtype, buffer, from, target)
      checkFinite(target, part, info, row, states.sides === 2 ? side : null)
    }
  }
}

function widen(dtype: FloatType, buffer: ArrayBuffer, offset: number, to: Float32Array): void {
  if (dtype === 'F32') to.set(new Float32Array(buffer, offset, to.length))
  else if (dtype === 'BF16') widenBF16(new Uint16Array(buffer, offset, to.length), to)
  else widenF16(new Uint16Array(buffer, offset, to.length), to)
}

function checkFinite(values: Float32Array, part: Part, { name, source }: TensorInfo, row: number, side: number | null) {
  // NaN * 0 and Infinity * 0 are NaN: one test for many values.
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i] * 0
  if (sum === 0) return
  const column = values.findIndex((value) => !Number.isFinite(value))
  const of = side === null ? '' : side === 0 ? ' (chosen)' : ' (rejected)'
  throw new Error(
    `${source.name}: ${name} must be finite, pair ${row - part.first}${of} has ${values[column]} at ${column}`,
  )
}
