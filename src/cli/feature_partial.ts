// The chunks of features that are finished, kept in a folder beside their target until all are there.
//
// settings.json is there before the first chunk, and every chunk is whole or absent, so that whatever moment the process is killed
// at, a run with the same settings goes on with the first chunk that is missing.
import { mkdir, readdir, readFile, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import about from '../../package.json' with { type: 'json' }
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { isObject, parseJsonObject, printable, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensor, type TensorData } from '../files/safetensors.ts'

/** Rows [first, first + count) of a shard, computed and kept together. */
export interface Chunk {
  readonly first: number
  readonly count: number
  readonly tokens: number
}

// Rows are packed and not padded, so batches of some thousand tokens are full in chunks of this size, and no more than this is lost.
const CHUNK_ROWS = 1024
const CHUNK_TOKENS = 32_768

/** Divides rows of so many tokens into chunks: as many as fit, at least one. Depends on nothing else. */
export function planChunks(tokens: readonly number[]): Chunk[] {
  const chunks: { first: number; count: number; tokens: number }[] = []
  for (const [row, own] of tokens.entries()) {
    const last = chunks[chunks.length - 1]
    if (last && last.count < CHUNK_ROWS && last.tokens + own <= CHUNK_TOKENS) {
      last.count++
      last.tokens += own
    } else chunks.push({ first: row, count: 1, tokens: own })
  }
  return chunks
}

/** Everything that the bits of the features depend on, by what an error calls it. */
export type FeatureSettings = Readonly<Record<string, unknown>>

/** A tensor of which each chunk holds `count` rows of this shape. */
export interface ChunkTensor {
  readonly name: string
  readonly dtype: 'F32' | 'BF16'
  /** Of one row. */
  readonly shape: readonly number[]
}

export interface PartialFeatures {
  /** Whether a chunk is finished. */
  has(chunk: number): boolean
  /** Keeps a chunk: the data of each tensor. */
  write(chunk: number, data: readonly ArrayBufferView[]): Promise<void>
  /** The bytes of one tensor, chunk by chunk. */
  read(tensor: string): AsyncGenerator<Uint8Array>
}

const SETTINGS = 'settings.json'
const CHUNK_NAME = /^chunk-\d{6,}\.safetensors$/
const TEMPORARY_NAME = /^\..*\.[0-9a-f]{12}\.tmp$/

/** The folder that belongs to a target. */
export function partialFolder(out: string): string {
  return `${out}.partial`
}

/**
 * Opens or makes the folder. Throws where it was begun with other settings, naming the first that differs, or is none of features;
 * `restart` begins it anew whatever the settings were. Chunks that are damaged are removed.
 */
export async function openPartial(
  folder: string,
  settings: FeatureSettings,
  { chunks, tensors, restart }: { chunks: readonly Chunk[]; tensors: readonly ChunkTensor[]; restart: boolean },
): Promise<PartialFeatures> {
  await makeFolder(folder)
  const path = (name: string) => join(folder, name)
  const names = await readdir(folder)
  const strange = names.find((name) => name !== SETTINGS && !CHUNK_NAME.test(name) && !TEMPORARY_NAME.test(name))
  if (strange !== undefined) {
    throw new Error(`${printable(folder)}: must hold chunks of features only, it has ${show(strange)}; move it away`)
  }
  // Another version may take other steps, and then the chunks would not be those of one run.
  const own = { 'Pinball version': about.version, ...settings }
  const resumed = names.includes(SETTINGS) && !restart
  if (resumed) compare(await readFile(path(SETTINGS), 'utf8'), own, path(SETTINGS))
  for (const name of names) if (TEMPORARY_NAME.test(name) || (!resumed && name !== SETTINGS)) await rm(path(name))
  if (!resumed) await writeFileAtomic(path(SETTINGS), [new TextEncoder().encode(`${JSON.stringify(own, null, 2)}\n`)])
  const file = (chunk: number) => path(`chunk-${String(chunk).padStart(6, '0')}.safetensors`)
  const shapes = (chunk: number) => tensors.map(({ shape }) => [chunks[chunk].count, ...shape])
  const finished = new Set<number>()
  for (const chunk of resumed ? chunks.keys() : []) {
    if (await isWhole(file(chunk), tensors, shapes(chunk))) finished.add(chunk)
  }
  return {
    has: (chunk) => finished.has(chunk),
    async write(chunk, data) {
      const all = tensors.map(({ name, dtype }, t): TensorData => {
        return { name, dtype, shape: shapes(chunk)[t], data: data[t] }
      })
      await writeFileAtomic(file(chunk), encodeSafetensors(all))
      finished.add(chunk)
    },
    async *read(tensor) {
      for (const chunk of chunks.keys()) {
        const source = await openFile(file(chunk))
        try {
          yield await readTensor((await openSafetensors(source)).tensors.get(tensor)!)
        } finally {
          await source.close()
        }
      }
    },
  }
}

/** Removes the folder, if it is there; the settings last, so that it can be opened again whenever this is cut off. */
export async function removePartial(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => null)
  if (names === null) return
  const ours = names.filter((name) => CHUNK_NAME.test(name) || TEMPORARY_NAME.test(name))
  for (const name of [...ours, SETTINGS]) await rm(join(folder, name), { force: true })
  // It stays where it has anything else.
  await rmdir(folder).catch(() => {})
}

async function makeFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => null)
  if (found?.isDirectory()) return
  if (found) throw new Error(`${printable(folder)}: must be a directory for finished features, it is a file; remove it`)
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${printable(folder)}: cannot be made (${error.code})`)
  })
}

function compare(text: string, now: FeatureSettings, path: string): void {
  const then = parseJsonObject(text, path)
  for (const [name, value] of Object.entries(now)) {
    if (JSON.stringify(then[name]) === JSON.stringify(value)) continue
    const [before, after] = [show(then[name]), show(value)]
    throw new Error(
      `${printable(path)}: was begun with ${name} ${before}, now it is ${after}; go on as it was begun, or give --restart`,
    )
  }
}

async function isWhole(path: string, tensors: readonly ChunkTensor[], shapes: readonly number[][]): Promise<boolean> {
  const source = await openFile(path).catch(() => null)
  if (source === null) return false
  try {
    const { tensors: found } = await openSafetensors(source)
    return tensors.every(({ name, dtype }, t) => {
      const info = found.get(name)
      return isObject(info) && info.dtype === dtype && JSON.stringify(info.shape) === JSON.stringify(shapes[t])
    })
  } catch {
    return false
  } finally {
    await source.close()
  }
}
