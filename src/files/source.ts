// Sources: everything Pinball reads, as named byte ranges; and model directories as named sources.

/**
 * A named, immutable run of bytes that is read by ranges. `read` returns an array that starts at offset 0 of its buffer (so it may
 * be viewed as any typed array) and throws when the range is not inside the source. The array is fresh, or, where `into` is
 * given and the source can fill it, the beginning of `into`: reading a large file piece by piece then leaves no garbage.
 */
export interface Source {
  /** What errors call it: a path, a URL or a file's name. */
  readonly name: string
  readonly byteLength: number
  read(offset: number, length: number, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>
  close(): Promise<void>
}

/**
 * Closes sources. Whoever opens a source closes it: what reads from one (files of tensors, ratings, pairs, tables) leaves it open, and
 * a function that is given one never closes it.
 */
export async function closeSources(sources: readonly Source[]): Promise<void> {
  for (const source of sources) await source.close()
}

/** Parts one after the other; a single part as it is. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]
  const whole = new Uint8Array(parts.reduce((bytes, part) => bytes + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** A model directory. `open` gives null where the file is missing and throws on every other failure. */
export interface ModelFiles {
  readonly name: string
  open(file: string): Promise<Source | null>
  /** Names of its files, sorted; folders in it are left out. */
  list?(): Promise<string[]>
}

/** Throws unless [offset, offset + length) is inside `source`; the first line of every `read`. */
export function checkRange(source: { name: string; byteLength: number }, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
  if (!whole || offset + length > source.byteLength) {
    throw new RangeError(
      `${source.name}: bytes ${offset} to ${offset + length} are not inside its ${source.byteLength}`,
    )
  }
}

/** Makes a source of bytes in memory. */
export function memorySource(name: string, bytes: Uint8Array): Source {
  return {
    name,
    byteLength: bytes.byteLength,
    async read(offset, length) {
      checkRange({ name, byteLength: bytes.byteLength }, offset, length)
      return new Uint8Array(bytes.subarray(offset, offset + length))
    },
    async close() {},
  }
}

/** The source, with a call for each read of it: the bytes that are asked for. */
export function watchReads(source: Source, onRead: (bytes: number) => void): Source {
  return {
    ...source,
    async read(offset, length, into) {
      const bytes = await source.read(offset, length, into)
      onRead(length)
      return bytes
    },
  }
}

/** Makes a source of a Blob or File (a file chosen in a browser), read by slices. */
export function blobSource(name: string, blob: Blob): Source {
  return {
    name,
    byteLength: blob.size,
    async read(offset, length) {
      checkRange({ name, byteLength: blob.size }, offset, length)
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer())
    },
    async close() {},
  }
}

/** Makes a model directory of files in memory: `{ 'config.json': bytes, ... }`. */
export function memoryFiles(name: string, files: Record<string, Uint8Array>): ModelFiles {
  return {
    name,
    async open(file) {
      return Object.hasOwn(files, file) ? memorySource(`${name}/${file}`, files[file]) : null
    },
    async list() {
      return Object.keys(files).sort()
    },
  }
}

/**
 * Makes a model directory of files that a user chose: a FileList of several files, or of a folder (`<input webkitdirectory>`), whose
 * subfolders are passed over. Throws where two have one name.
 */
export function blobFiles(name: string, files: Iterable<File>): ModelFiles {
  const depth = (file: File) => (file.webkitRelativePath || file.name).split('/').length
  const all = [...files]
  const least = all.reduce((found, file) => Math.min(found, depth(file)), Infinity)
  const byName = new Map<string, File>()
  for (const file of all) {
    if (depth(file) > least) continue
    if (byName.has(file.name)) throw new Error(`${name}: two files are called ${JSON.stringify(file.name)}`)
    byName.set(file.name, file)
  }
  return {
    name,
    async open(file) {
      const blob = byName.get(file)
      return blob === undefined ? null : blobSource(`${name}/${file}`, blob)
    },
    async list() {
      return [...byName.keys()].sort()
    },
  }
}

// No text file of a model directory is near this; it keeps a hostile one from filling the memory.
const TEXT_LIMIT_BYTES = 512 * 2 ** 20

/** Reads a whole file of a model directory as UTF-8 text, or gives null where it is missing. Throws on other bytes. */
export async function readText(files: ModelFiles, file: string): Promise<string | null> {
  const source = await files.open(file)
  if (source === null) return null
  try {
    if (source.byteLength > TEXT_LIMIT_BYTES) {
      throw new Error(`${source.name}: ${source.byteLength} bytes are more than the ${TEXT_LIMIT_BYTES} of a text file`)
    }
    return decodeUtf8(await source.read(0, source.byteLength), source.name)
  } finally {
    await source.close()
  }
}

/** Decodes UTF-8 (a leading byte order mark is dropped); throws `NAME: not valid UTF-8 text` otherwise. */
export function decodeUtf8(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Error(`${name}: not valid UTF-8 text`)
  }
}
