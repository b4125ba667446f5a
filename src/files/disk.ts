// The local disk: files and folders as sources, and the one place that decides what may be overwritten or removed.
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, open as openDescriptor, unlinkSync } from 'node:fs'
import { type FileHandle, lstat, open, readdir, realpath, rename, rmdir, stat, unlink } from 'node:fs/promises'
import { Socket } from 'node:net'
import { hostname } from 'node:os'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { promisify } from 'node:util'
import { printable } from './json.ts'
import { makeFolder } from './new_folder.ts'
import { checkRange, type ModelFiles, type Source } from './source.ts'
import type { Store, StoreTree } from './store.ts'
import { explainSystem } from './system_errors.ts'

// One read call moves at most this much: Node passes lengths to the system as 32-bit numbers.
const READ_BYTES = 2 ** 30
// Files are hashed piece by piece.
const DIGEST_BYTES = 4 * 2 ** 20

/** Opens a file for reading by ranges. Throws `PATH: no such file`, `PATH: is a directory, ...` and the like. */
export async function openFile(path: string): Promise<Source> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${explainSystem(error)}`)
  })
  try {
    const about = await handle.stat()
    if (about.isDirectory()) throw new Error(`${path}: is a directory, a file is needed`)
    if (!about.isFile()) throw new Error(`${path}: is not a regular file`)
    return fileSource(path, handle, about.size)
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Opens a file by ranges, as `openFile` does, but a pipe (once it has a writer) or a character device as a stream. */
export async function openInput(path: string): Promise<Source | AsyncIterable<Uint8Array>> {
  const about = await stat(path).catch(() => null)
  if (about?.isCharacterDevice()) return createReadStream(path)
  if (!about?.isFIFO()) return openFile(path)
  const fd = await promisify(openDescriptor)(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${explainSystem(error)}`)
  })
  // A socket waits without holding a thread, which would keep the process from ending.
  return new Socket({ fd, readable: true, writable: false })
}

/** Opens a model directory. Throws `PATH: no such directory` and the like; files in it are looked up when asked for. */
export async function openDirectory(path: string): Promise<ModelFiles> {
  const about = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${error.code === 'ENOENT' ? 'no such directory' : explainSystem(error)}`)
  })
  if (!about.isDirectory()) throw new Error(`${path}: is not a directory; a model is a directory with config.json`)
  return { name: path, open: (file) => openInside(path, file), list: () => listFiles(path) }
}

/** Names of the files of a folder, without folders in it. */
async function listFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name)
    .sort()
}

/** Throws unless `file` is the plain name of a file. */
function checkName(folder: string, file: string): string {
  const plain = file !== '' && file !== '.' && file !== '..' && basename(file) === file && !/[\\\0]/.test(file)
  if (!plain) throw new Error(`${folder}: ${JSON.stringify(file)} is not the name of a file in it`)
  return file
}

/** Opens a file of a folder; null where it is missing. */
async function openInside(folder: string, file: string): Promise<Source | null> {
  const inside = join(folder, checkName(folder, file))
  const there = await stat(inside).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw new Error(`${inside}: ${explainSystem(error)}`)
  })
  return there === null ? null : openFile(inside)
}

function fileSource(name: string, handle: FileHandle, byteLength: number): Source {
  return {
    name,
    byteLength,
    async read(offset, length, into) {
      checkRange({ name, byteLength }, offset, length)
      const bytes = into && into.length >= length ? into.subarray(0, length) : new Uint8Array(length)
      let done = 0
      while (done < length) {
        const { bytesRead } = await handle.read(bytes, done, Math.min(length - done, READ_BYTES), offset + done)
        if (bytesRead === 0) {
          throw new Error(`${name}: ended at byte ${offset + done} while it was read; it had ${byteLength} when opened`)
        }
        done += bytesRead
      }
      return bytes
    },
    close: () => handle.close(),
  }
}

// Temporary files that exist right now, so that a process that is told to stop can take them along.
const unfinished = new Set<string>()

/**
 * Writes a file from chunks of bytes so that it appears complete or not at all: a temporary file in the same folder,
 * synced, then renamed over `path`. The temporary file is removed when anything fails, and so are those that killed processes of
 * this machine have left of earlier tries.
 */
export async function writeFileAtomic(
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const target = await findTarget(path)
  await removeAbandoned(target)
  const temporary = temporaryName(target)
  let handle: FileHandle | null = null
  unfinished.add(temporary)
  try {
    handle = await open(temporary, 'wx')
    for await (const chunk of chunks) await writeAll(handle, chunk)
    await handle.sync()
    await handle.close()
    handle = null
    await rename(temporary, target)
    await syncFolder(dirname(target))
  } catch (error) {
    await handle?.close().catch(() => {})
    await unlink(temporary).catch(() => {})
    const code = (error as NodeJS.ErrnoException).code
    throw code === undefined ? error : new Error(`${path}: cannot be written: ${explainWrite(error)}`)
  } finally {
    unfinished.delete(temporary)
  }
}

/** Makes renames in a folder last over a power cut, where the system can do that. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => null)
  await handle?.sync().catch(() => {})
  await handle?.close()
}

/** Throws unless `writeFileAtomic` can write `path`, as far as can be known now: the temporary file is made and removed. */
export async function checkTarget(path: string): Promise<void> {
  const temporary = temporaryName(await findTarget(path))
  unfinished.add(temporary)
  try {
    await (await open(temporary, 'wx')).close()
    await unlink(temporary)
  } catch (error) {
    const known = error as NodeJS.ErrnoException
    // The folder exists, but is no place for files: /proc is such a one.
    const reason = known.code === 'ENOENT' ? `no files can be made in ${dirname(path)}` : explainSystem(known)
    throw new Error(`${path}: cannot be written: ${reason}`)
  } finally {
    unfinished.delete(temporary)
  }
}

/** A path that a command was given, and the option that gave it. */
export interface NamedPath {
  readonly option: string
  readonly path: string
}

/**
 * Says in one line which output would overwrite an input or another output, under whatever name (links included), or gives null. An
 * input that is a folder stands for the files in it, and nothing may be read from an output that is a folder. Every output must be
 * named, those with derived names too.
 */
export async function findClash(
  inputs: readonly NamedPath[],
  files: readonly NamedPath[],
  folders: readonly NamedPath[] = [],
): Promise<string | null> {
  const taken = new Map<string, NamedPath & { readonly verb: string }>()
  for (const { option, path } of inputs) {
    const about = await stat(path).catch(() => null)
    const inside = about?.isDirectory() ? (await listFiles(path).catch(() => [])).map((name) => join(path, name)) : []
    const around = dirname(await realpath(path).catch(() => resolve(path)))
    for (const file of [path, ...inside])
      for (const identity of await identities(file)) taken.set(identity, { option, path: file, verb: 'reads' })
    for (const folder of folders) {
      const own = await identities(folder.path)
      if ((await identities(around)).some((identity) => own.includes(identity)))
        return clash(folder, { option, path, verb: 'reads' })
    }
  }
  for (const output of [...folders, ...files]) {
    const own = await identities(output.path)
    const found = own.find((identity) => taken.has(identity))
    if (found !== undefined) return clash(output, taken.get(found)!)
    for (const identity of own) taken.set(identity, { ...output, verb: 'writes' })
  }
  return null
}

function clash(output: NamedPath, other: NamedPath & { readonly verb: string }): string {
  const [own, theirs] = [printable(output.path), printable(other.path)]
  const what = own === theirs ? own : `${own} (${other.option} has ${theirs})`
  return `${output.option}: must not be what ${other.option} ${other.verb}, got ${what}; choose another name`
}

/** What makes a path the same file as another: its real path, and the file itself where it is there. */
async function identities(path: string): Promise<string[]> {
  const real = await realpath(path).catch(async () => {
    const folder = await realpath(dirname(path)).catch(() => resolve(dirname(path)))
    return join(folder, basename(path))
  })
  const about = await stat(path, { bigint: true }).catch(() => null)
  return about === null ? [real] : [real, `${about.dev}:${about.ino}`]
}

/** A folder on the disk as a store. It is made when the first file is written; its parent must exist by then. */
export function directoryStore(folder: string): Store {
  const path = (file: string) => join(folder, checkName(folder, file))
  const failed = (file: string) => (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw new Error(`${join(folder, file)}: ${explainSystem(error)}`)
  }
  return {
    name: folder,
    open: (file) => openInside(folder, file),
    async list() {
      const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return []
        throw new Error(
          `${folder}: ${error.code === 'ENOTDIR' ? 'must be a directory, it is a file; move it away or choose another --out' : explainSystem(error)}`,
        )
      })
      return names.filter((name) => !TEMPORARY.test(name)).sort()
    },
    async write(file, chunks) {
      await makeFolder(folder)
      await writeFileAtomic(path(file), chunks)
    },
    async append(file, length, bytes) {
      const target = path(file)
      const handle = await open(target, length === 0 ? 'a+' : 'r+').catch((error: NodeJS.ErrnoException) => {
        throw new Error(`${target}: ${explainSystem(error)}`)
      })
      try {
        const { size } = await handle.stat()
        if (size < length) throw new Error(`${target}: must have ${length} bytes, got ${size}`)
        await handle.truncate(length)
        await writeAll(handle, bytes, length)
        await handle.sync()
      } catch (error) {
        const known = (error as NodeJS.ErrnoException).code !== undefined
        throw known ? new Error(`${target}: cannot be written: ${explainWrite(error)}`) : error
      } finally {
        await handle.close()
      }
    },
    async digest(file) {
      const hash = createHash('sha256')
      const source = await openFile(path(file))
      try {
        const piece = new Uint8Array(Math.min(DIGEST_BYTES, source.byteLength))
        for (let at = 0; at < source.byteLength; at += piece.length) {
          hash.update(await source.read(at, Math.min(piece.length, source.byteLength - at), piece))
        }
      } finally {
        await source.close()
      }
      return hash.digest('hex')
    },
    async rename(file, name) {
      await rename(path(file), path(name)).catch((error: NodeJS.ErrnoException) => {
        throw new Error(`${join(folder, file)}: cannot be renamed: ${explainSystem(error)}`)
      })
    },
    async remove(file) {
      await unlink(path(file)).catch(failed(file))
    },
    async removeIfEmpty() {
      for (const name of await readdir(folder).catch(() => [])) {
        if (isAbandoned(name)) await unlink(join(folder, name)).catch(() => {})
      }
      await rmdir(folder).catch(() => {})
    },
  }
}

/** A folder on the disk with the folders in it, as stores. */
export function directoryTree(root: string): StoreTree {
  const path = (folder: string) => join(root, checkName(root, folder))
  return {
    ...directoryStore(root),
    async folders() {
      const entries = await readdir(root, { withFileTypes: true }).catch(() => [])
      return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort()
    },
    folder: (name) => directoryStore(path(name)),
    async renameFolder(name, to) {
      // A folder that is empty would be replaced.
      const there = await stat(path(to)).catch(() => null)
      if (there) throw new Error(`${path(to)}: is there already`)
      await rename(path(name), path(to)).catch((error: NodeJS.ErrnoException) => {
        throw new Error(`${path(name)}: cannot be renamed: ${explainSystem(error)}`)
      })
      await syncFolder(root)
    },
  }
}

// Host and process of whoever writes, so that others know whether it still does.
const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 6)
const TEMPORARY = /^\..+\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.tmp$/

function temporaryName(target: string): string {
  const own = `${HOST}-${process.pid}-${randomBytes(4).toString('hex')}`
  return join(dirname(target), `.${basename(target)}.${own}.tmp`)
}

/** Whether a name is that of a temporary file of a process of this machine that has ended. */
function isAbandoned(name: string): boolean {
  const [, host, pid] = TEMPORARY.exec(name) ?? []
  return host === HOST && !isAlive(Number(pid))
}

/** Whether a process of this machine runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Removes what processes that were killed while they wrote the file at `path` have left beside it. */
async function removeAbandoned(path: string): Promise<void> {
  const [folder, begin] = [dirname(path), `.${basename(path)}.`]
  for (const name of await readdir(folder).catch(() => [])) {
    if (name.startsWith(begin) && isAbandoned(name)) await unlink(join(folder, name)).catch(() => {})
  }
}

/** Throws unless the folder of `path` exists and `path` is not a directory, device or broken link. Gives the real path. */
async function findTarget(path: string): Promise<string> {
  const about = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw new Error(`${path}: cannot be written: ${explainSystem(error)}`)
  })
  if (about?.isDirectory() || path.endsWith('/') || path.endsWith(sep)) {
    throw new Error(`${path}: cannot be written: is a directory`)
  }
  if (about !== null) {
    if (!about.isFile()) throw new Error(`${path}: cannot be written: is not a regular file`)
    return realpath(path)
  }
  if (await lstat(path).catch(() => null))
    throw new Error(`${path}: cannot be written: is a link to a file that is missing`)
  const folder = await stat(dirname(path)).catch(() => null)
  if (!folder?.isDirectory()) throw new Error(`${path}: cannot be written: no such directory: ${dirname(path)}`)
  return path
}

/** Removes, at once, the temporary files of writes that have not finished: for the handler of an interrupt. */
export function discardUnfinished(): void {
  for (const path of unfinished) {
    try {
      unlinkSync(path)
    } catch {
      // It was not created yet or has just been renamed: there is nothing to remove.
    }
  }
}

function explainWrite(error: unknown): string {
  const known = error as NodeJS.ErrnoException
  return known.code === 'ENOENT' ? 'no such directory' : explainSystem(known)
}

/** Writes at a place of the file, or where the last write ended. */
async function writeAll(handle: FileHandle, chunk: Uint8Array, at?: number): Promise<void> {
  let done = 0
  while (done < chunk.byteLength) {
    const place = at === undefined ? null : at + done
    const { bytesWritten } = await handle.write(chunk, done, Math.min(chunk.byteLength - done, READ_BYTES), place)
    done += bytesWritten
  }
}
