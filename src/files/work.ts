// Work that takes long and is kept while it goes on, so that the same call continues it after a crash and gives the same bits.
//
// A folder belongs to a piece of work once it holds `pinball-work.json`: the command, the version and every setting on which the
// bits depend. What is finished lies beside it in sealed parts, NAME.part: the content, then a trailer with its length and its
// SHA-256. A part appears whole or not at all; a damaged one is named and set aside as NAME.part.damaged, and made again.
// Nothing else in the folder is ever touched, and a folder that holds anything else and no such file is refused.
import about from '../../package.json' with { type: 'json' }
import { BLOCK_BYTES, BlockHash, digest, hex } from './hash.ts'
import { isObject, parseJsonObject, printable, show } from './json.ts'
import { checkRange, readText, type Source } from './source.ts'
import type { Store } from './store.ts'

/** The file that makes a folder the folder of a piece of work. */
export const WORK_FILE = 'pinball-work.json'
const PART = /\.part$/

/** What the bits of a work depend on, by what an error calls it: an option, or what was read. Values are JSON. */
export type WorkSettings = Readonly<Record<string, unknown>>

export interface WorkOptions {
  /** The command, as `fit`; work of another one is refused. */
  readonly command: string
  readonly settings: WorkSettings
  /** What the names of its parts look like, without their ending; files of other names are left alone. None by default. */
  readonly partNames?: RegExp
  /** Begins anew, whatever the settings were; parts that are there are removed. */
  readonly restart?: boolean
  /** Names of other files that may be there although the work has not begun, such as the result of finished work. */
  readonly allowed?: readonly string[]
  /** Takes one line about each damaged part. */
  readonly onDamage?: (line: string) => void
}

export interface Work {
  readonly store: Store
  /** Whether an earlier call has begun it. */
  readonly resumed: boolean
  /** Names, without their ending, of the finished parts; sorted. */
  parts(): string[]
  has(part: string): boolean
  /** Seals a part. */
  write(part: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void>
  /** Opens the content of a part. */
  open(part: string): Promise<Source>
  remove(part: string): Promise<void>
  /** Removes parts, damaged ones too, then the file that marks the folder, and the folder where nothing else is in it. */
  end(): Promise<void>
}

/**
 * Opens or begins a piece of work. Throws where the folder holds something else, work of another command, or work with other
 * settings, of which the first that differs is named.
 */
export async function openWork(store: Store, options: WorkOptions): Promise<Work> {
  const { command, partNames, restart = false, allowed = [], onDamage = () => {} } = options
  const settings = versionedSettings(options.settings)
  const names = await store.list()
  const marked = names.includes(WORK_FILE)
  const strange = names.find((name) => !allowed.includes(name))
  if (!marked && strange !== undefined) {
    throw new Error(
      `${printable(store.name)}: must be missing, empty or hold work of "${command}", it has ${show(strange)}; move it away or choose another --out`,
    )
  }
  const resumed = marked && !(await begunAnew(store, command, settings, restart))
  const sound = new Set<string>()
  for (const name of names.filter((other) => isOurs(other, partNames))) {
    if (!resumed) await store.remove(name)
    else if (PART.test(name)) {
      if (await isSound(store, name)) sound.add(name.replace(PART, ''))
      else {
        await store.rename(name, `${name}.damaged`)
        onDamage(`${printable(store.name)}/${name} is damaged; it is set aside as ${name}.damaged and made again`)
      }
    }
  }
  if (!resumed) await store.write(WORK_FILE, [await encodeMarker(command, settings)])
  return {
    store,
    resumed,
    parts: () => [...sound].sort(),
    has: (part) => sound.has(part),
    async write(part, chunks) {
      if (!isOurs(`${part}.part`, partNames)) throw new Error(`${command}: ${show(part)} is no name of a part`)
      await store.write(`${part}.part`, sealed(chunks))
      sound.add(part)
    },
    async open(part) {
      const source = await store.open(`${part}.part`)
      if (source === null) throw new Error(`${store.name}/${part}.part: no such file; run the same command again`)
      return { ...inner(source), close: () => source.close() }
    },
    async remove(part) {
      sound.delete(part)
      await store.remove(`${part}.part`)
    },
    end: () => removeWork(store, partNames),
  }
}

/** Ends work that has finished but for this: of the command, and begun with these settings, whatever others it has. */
export async function endFinished(
  store: Store,
  { command, settings, partNames }: Pick<WorkOptions, 'command' | 'settings' | 'partNames'>,
): Promise<void> {
  if (!(await store.list()).includes(WORK_FILE)) return
  const text = (await readText(store, WORK_FILE)) ?? ''
  let found: unknown
  try {
    found = JSON.parse(text)
  } catch {
    return
  }
  if (!isObject(found) || found.pinball !== 'work' || found.command !== command || !isObject(found.settings)) return
  for (const [name, value] of Object.entries(versionedSettings(settings))) {
    if (JSON.stringify(found.settings[name]) !== JSON.stringify(value)) return
  }
  await removeWork(store, partNames)
}

/** Whether a file is a part of the work, a damaged one included. */
function isOurs(file: string, partNames?: RegExp): boolean {
  const [, part] = /^(.+)\.part(\.damaged)?$/.exec(file) ?? []
  return part !== undefined && partNames?.test(part) === true
}

async function removeWork(store: Store, partNames?: RegExp): Promise<void> {
  for (const name of await store.list()) if (isOurs(name, partNames)) await store.remove(name)
  await store.remove(WORK_FILE)
  await store.removeIfEmpty()
}

/** Throws where settings differ, and names the first that does; `begun` is what the error calls what there was. */
export function compareSettings(earlier: unknown, now: WorkSettings, path: string, begun = 'was begun'): void {
  const before = isObject(earlier) ? earlier : {}
  for (const name of Object.keys({ ...now, ...before })) {
    if (JSON.stringify(before[name]) === JSON.stringify(now[name])) continue
    const then = before[name] === undefined ? `without ${name}` : `with ${name} ${show(before[name])}`
    const present = now[name] === undefined ? 'it has none' : `it is ${show(now[name])}`
    throw new Error(
      `${printable(path)}: ${begun} ${then}, now ${present}; use the same, or give --restart or another --out`,
    )
  }
}

/** Settings as they are kept: another version may take other steps, and then the parts would not be those of one run. */
export function versionedSettings(settings: WorkSettings): WorkSettings {
  return { 'Pinball version': about.version, ...settings }
}

async function encodeMarker(command: string, settings: WorkSettings): Promise<Uint8Array> {
  const content = { pinball: 'work', command, settings }
  const encoder = new TextEncoder()
  const sha256 = await digest(encoder.encode(JSON.stringify(content)))
  return encoder.encode(`${JSON.stringify({ ...content, sha256 }, null, 2)}\n`)
}

/** Checks the file that marks the folder. Gives whether the work is to begin anew; throws where it must not go on. */
async function begunAnew(store: Store, command: string, settings: WorkSettings, restart: boolean): Promise<boolean> {
  const path = `${store.name}/${WORK_FILE}`
  const found = parseJsonObject((await readText(store, WORK_FILE)) ?? '{}', path)
  const { sha256, ...content } = found
  if (found.pinball !== 'work') throw new Error(`${printable(path)}: is not Pinball's; move it away`)
  if (found.command !== command) {
    throw new Error(
      `${printable(path)}: holds work of "${String(found.command)}", not of "${command}"; finish that, move it away, or choose another --out`,
    )
  }
  if (restart) return true
  if (sha256 !== (await digest(new TextEncoder().encode(JSON.stringify(content))))) {
    throw new Error(`${printable(path)}: is damaged (its checksum differs); give --restart or another --out`)
  }
  compareSettings(found.settings, settings, path)
  return false
}

// The trailer of a part: these eight bytes, the length of the content (64 bits, little-endian), and its block hash.
const MAGIC = new TextEncoder().encode('PINBALL\n')
const TRAILER_BYTES = 8 + 8 + 32

async function* sealed(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const hash = new BlockHash()
  for await (const chunk of chunks) {
    await hash.update(chunk)
    yield chunk
  }
  const trailer = new Uint8Array(TRAILER_BYTES)
  trailer.set(MAGIC)
  new DataView(trailer.buffer).setBigUint64(8, BigInt(hash.length), true)
  trailer.set(await hash.result(), 16)
  yield trailer
}

/** The content of a sealed file. */
function inner(source: Source): Source {
  const { name } = source
  const byteLength = Math.max(0, source.byteLength - TRAILER_BYTES)
  return {
    name,
    byteLength,
    read(offset, length, into) {
      checkRange({ name, byteLength }, offset, length)
      return source.read(offset, length, into)
    },
    close: () => source.close(),
  }
}

/** Whether a sealed file is what was written; reads all of it. */
async function isSound(store: Store, file: string): Promise<boolean> {
  const source = await store.open(file)
  if (source === null || source.byteLength < TRAILER_BYTES) {
    await source?.close()
    return false
  }
  try {
    const content = inner(source)
    const trailer = await source.read(content.byteLength, TRAILER_BYTES)
    const length = new DataView(trailer.buffer, trailer.byteOffset).getBigUint64(8, true)
    if (MAGIC.some((byte, i) => trailer[i] !== byte) || length !== BigInt(content.byteLength)) return false
    const hash = new BlockHash()
    const piece = new Uint8Array(Math.min(BLOCK_BYTES, content.byteLength))
    for (let at = 0; at < content.byteLength; at += BLOCK_BYTES) {
      await hash.update(await content.read(at, Math.min(BLOCK_BYTES, content.byteLength - at), piece))
    }
    return hex(await hash.result()) === hex(trailer.subarray(16))
  } finally {
    await source.close()
  }
}
