// Files of the local disk as sources, and files written whole or not at all; the only file here that needs Node.
import { randomBytes } from 'node:crypto'
import { createReadStream, open as openDescriptor, unlinkSync } from 'node:fs'
import { type FileHandle, open, readdir, realpath, rename, stat, unlink } from 'node:fs/promises'
import { Socket } from 'node:net'
import { basename, dirname, join, sep } from 'node:path'
import { promisify } from 'node:util'
import { checkRange, type ModelFiles, type Source } from './source.ts'

// One read call moves at most this much: Node passes lengths to the system as 32-bit numbers.
const READ_BYTES = 2 ** 30

/** Opens a file for reading by ranges. Throws `PATH: no such file`, `PATH: is a directory, ...` and the like. */
export async function openFile(path: string): Promise<Source> {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${explain(error)}`)
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
    throw new Error(`${path}: ${explain(error)}`)
  })
  // A socket waits without holding a thread, which would keep the process from ending.
  return new Socket({ fd, readable: true, writable: false })
}

/** Opens a model directory. Throws `PATH: no such directory` and the like; files in it are looked up when asked for. */
export async function openDirectory(path: string): Promise<ModelFiles> {
  const about = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path}: ${error.code === 'ENOENT' ? 'no such directory' : explain(error)}`)
  })
  if (!about.isDirectory()) throw new Error(`${path}: is not a directory; a model is a directory with config.json`)
  return {
    name: path,
    async open(file) {
      if (
        file === '' ||
        basename(file) !== file ||
        file === '..' ||
        file === '.' ||
        file.includes('\\') ||
        file.includes('\0')
      ) {
        throw new Error(`${path}: ${JSON.stringify(file)} is not the name of a file in it`)
      }
      const inside = join(path, file)
      const there = await stat(inside).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return null
        throw new Error(`${inside}: ${explain(error)}`)
      })
      return there === null ? null : openFile(inside)
    },
    async list() {
      return (await readdir(path)).sort()
    },
  }
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

/** Says in words what the system found wrong with a path. */
function explain(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'no such file'
  if (error.code === 'EACCES' || error.code === 'EPERM') return 'permission denied'
  if (error.code === 'ENOTDIR') return 'a part of the path is not a directory'
  if (error.code === 'EISDIR') return 'is a directory, a file is needed'
  if (error.code === 'ENOSPC') return 'no space left on the disk'
  if (error.code === 'EROFS') return 'the file system is read-only'
  if (error.code === 'ENAMETOOLONG') return 'the name is too long'
  return `${error.code ?? error.message}`
}

// Temporary files that exist right now, so that a process that is told to stop can take them along.
const unfinished = new Set<string>()

/**
 * Writes a file from chunks of bytes so that it appears complete or not at all: a temporary file in the same folder,
 * synced, then renamed over `path`. The temporary file is removed when anything fails.
 */
export async function writeFileAtomic(
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  const target = await findTarget(path)
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
  } catch (error) {
    await handle?.close().catch(() => {})
    await unlink(temporary).catch(() => {})
    const code = (error as NodeJS.ErrnoException).code
    throw code === undefined ? error : new Error(`${path}: cannot be written: ${explainWrite(error)}`)
  } finally {
    unfinished.delete(temporary)
  }
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
    const reason = known.code === 'ENOENT' ? `no files can be made in ${dirname(path)}` : explain(known)
    throw new Error(`${path}: cannot be written: ${reason}`)
  } finally {
    unfinished.delete(temporary)
  }
}

function temporaryName(target: string): string {
  return join(dirname(target), `.${basename(target)}.${randomBytes(6).toString('hex')}.tmp`)
}

/** Throws unless the folder of `path` exists and `path` is not a directory or device. Gives the real path. */
async function findTarget(path: string): Promise<string> {
  const about = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw new Error(`${path}: cannot be written: ${explain(error)}`)
  })
  if (about?.isDirectory() || path.endsWith('/') || path.endsWith(sep)) {
    throw new Error(`${path}: cannot be written: is a directory`)
  }
  if (about !== null) {
    if (!about.isFile()) throw new Error(`${path}: cannot be written: is not a regular file`)
    return realpath(path)
  }
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

/** Removes what processes that were killed while they wrote the file at `path` have left beside it. */
export async function removeAbandoned(path: string): Promise<void> {
  const [folder, begin] = [dirname(path), `.${basename(path)}.`]
  for (const name of await readdir(folder).catch(() => [])) {
    const ours = name.startsWith(begin) && /^[0-9a-f]{12}\.tmp$/.test(name.slice(begin.length))
    if (ours) await unlink(join(folder, name)).catch(() => {})
  }
}

function explainWrite(error: unknown): string {
  const known = error as NodeJS.ErrnoException
  return known.code === 'ENOENT' ? 'no such directory' : explain(known)
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  let done = 0
  while (done < chunk.byteLength) {
    const { bytesWritten } = await handle.write(chunk, done, Math.min(chunk.byteLength - done, READ_BYTES))
    done += bytesWritten
  }
}
