// Files of the Hugging Face hub on the local disk: fetched once, resumed, checked against their hashes, shared by processes.
//
// CACHE/hub/datasets/OWNER/NAME/refs/REVISION.json   the commit and its files, as they were last listed
// CACHE/hub/datasets/OWNER/NAME/blobs/HASH           a whole, checked file
//                               blobs/HASH.HOST.PID.WORD.partial   what a process has of a file so far
//
// A process writes only to partial files that carry its own name, and takes over those of processes that are gone by renaming
// them, which one process alone can do. So there are no locks that a killed process could leave behind.
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { homedir, hostname } from 'node:os'
import { join } from 'node:path'
import { isAlive, openFile, writeFileAtomic } from './disk.ts'
import { httpRange, UnreachableError } from './http.ts'
import {
  checkFile,
  checkRepo,
  HUB_ENDPOINT,
  type HubFile,
  type HubListing,
  type HubOptions,
  type HubRepo,
  hubEndpoint,
  hubName,
  hubUrl,
  listHub,
  matchHub,
  tokenHeader,
} from './hub.ts'
import { isObject, parseJsonObject } from './json.ts'
import type { Source } from './source.ts'

export interface HubCacheOptions extends HubOptions {
  /** Folder of the cache; PINBALL_CACHE or ~/.cache/pinball without it. */
  readonly cache?: string
  /** Never asks the network; true without it where HF_HUB_OFFLINE is 1. */
  readonly offline?: boolean
  /** Bytes of a file that are here, of all, while it is fetched. */
  readonly onProgress?: (path: string, bytes: number, total: number) => void
}

/** A file that is fetched when it is opened, or already here. */
export interface CachedFile {
  readonly path: string
  readonly size: number
  /** Opens the local copy; fetches and checks it first where it is not there. */
  open(): Promise<Source>
}

/**
 * Finds the files of a repository whose paths fit `pattern` (see matchHub). Endpoint and token come from HF_ENDPOINT and HF_TOKEN
 * where the options have none. Without a network the files are those of the last listing.
 */
export async function openHub(
  repo: HubRepo,
  pattern: string,
  given: HubCacheOptions = {},
): Promise<{ commit: string; files: CachedFile[] }> {
  checkRepo(repo)
  const options = fromEnvironment(given)
  const folder = join(options.cache, 'hub', `${repo.type}s`, ...repo.name.split('/'))
  const listing = await findListing(repo, folder, options)
  const files = matchHub(repo, listing, pattern).map((file) => ({
    path: file.path,
    size: file.size,
    open: async () => {
      const path = await fetchBlob(repo, listing.commit, file, folder, options)
      return { ...(await openFile(path)), name: hubName(repo, file.path) }
    },
  }))
  return { commit: listing.commit, files }
}

type Settled = HubCacheOptions & Required<Pick<HubCacheOptions, 'cache' | 'endpoint' | 'offline'>>

function fromEnvironment(options: HubCacheOptions): Settled {
  const { PINBALL_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE } = process.env
  return {
    ...options,
    cache: options.cache ?? (PINBALL_CACHE || join(homedir(), '.cache', 'pinball')),
    endpoint: hubEndpoint(
      options.endpoint ?? (HF_ENDPOINT || HUB_ENDPOINT),
      options.endpoint ? 'endpoint' : 'HF_ENDPOINT',
    ),
    token: options.token ?? HF_TOKEN,
    offline: options.offline ?? HF_HUB_OFFLINE === '1',
  }
}

async function findListing(repo: HubRepo, folder: string, options: Settled): Promise<HubListing> {
  const { revision = 'main' } = repo
  const path = join(folder, 'refs', `${encodeURIComponent(revision)}.json`)
  const saved = await readListing(path, repo)
  // A commit never changes.
  if (saved && (options.offline || revision === saved.commit)) return saved
  if (options.offline) {
    throw new Error(`${hubName(repo)}: is not in the cache ${options.cache}, and HF_HUB_OFFLINE forbids to fetch it`)
  }
  try {
    const listing = await listHub(repo, options)
    await mkdir(join(folder, 'refs'), { recursive: true })
    await writeFileAtomic(path, [Buffer.from(JSON.stringify(listing))])
    return listing
  } catch (error) {
    if (saved && error instanceof UnreachableError) return saved
    throw error
  }
}

async function readListing(path: string, repo: HubRepo): Promise<HubListing | null> {
  const text = await readFile(path, 'utf8').catch(() => null)
  if (text === null) return null
  const { commit, files } = parseJsonObject(text, path)
  if (typeof commit !== 'string' || !/^[0-9a-f]{40}$/.test(commit) || !Array.isArray(files) || !files.every(isObject)) {
    throw new Error(`${path}: is not a listing of a repository; remove it`)
  }
  return { commit, files: files.map((file) => checkFile(file as unknown as HubFile, repo)) }
}

/** Gives the path of the whole, checked file. */
async function fetchBlob(
  repo: HubRepo,
  commit: string,
  file: HubFile,
  folder: string,
  options: Settled,
): Promise<string> {
  const blobs = join(folder, 'blobs')
  const path = join(blobs, file.sha256 ?? file.oid)
  const there = await stat(path).catch(() => null)
  if (there?.size === file.size) return path
  const name = hubName(repo, file.path)
  if (options.offline) throw new Error(`${name}: is not in the cache, and HF_HUB_OFFLINE forbids to fetch it`)
  await mkdir(blobs, { recursive: true })
  const url = hubUrl(repo, commit, file.path, options.endpoint)
  // What was left of an earlier try may be of no use: then once more from the beginning.
  for (let attempt = 0; ; attempt++) {
    const { partial, resumed } = await claimPartial(blobs, file)
    try {
      const matches = await fetchInto(partial, url, file, { ...options, name, headers: tokenHeader(options) })
      if (matches) {
        await rename(partial, path)
        return path
      }
      await rm(partial, { force: true })
    } finally {
      active.delete(partial)
    }
    if (!resumed || attempt > 0) {
      throw new Error(`${name}: what the server sent does not have the hash that the hub lists; try again later`)
    }
  }
}

// Partial files that this process writes right now.
const active = new Set<string>()
// Elsewhere nobody can ask whether a process lives, so its file is left alone for a while.
const ABANDONED_MS = 3_600_000

/** Takes over the longest partial file that nobody writes, or names a new one. */
async function claimPartial(blobs: string, file: HubFile): Promise<{ partial: string; resumed: boolean }> {
  const hash = file.sha256 ?? file.oid
  const host = hostname().replace(/[^\w-]/g, '_')
  const own = join(blobs, `${hash}.${host}.${process.pid}.${randomBytes(6).toString('hex')}.partial`)
  active.add(own)
  const left: { path: string; size: number }[] = []
  for (const name of await readdir(blobs)) {
    if (!name.startsWith(`${hash}.`) || !name.endsWith('.partial')) continue
    const path = join(blobs, name)
    const about = await stat(path).catch(() => null)
    if (about === null || active.has(path)) continue
    const [, theirs, pid] = name.split('.')
    // A file of this process that is not active was left by a try that failed.
    const ended = Number(pid) === process.pid || !isAlive(Number(pid))
    const free = theirs === host ? ended : Date.now() - about.mtimeMs > ABANDONED_MS
    if (free) left.push({ path, size: about.size })
  }
  for (const { path } of left.sort((a, b) => b.size - a.size)) {
    const taken = await rename(path, own).then(
      () => true,
      () => false, // another process was quicker
    )
    if (taken) return { partial: own, resumed: true }
  }
  return { partial: own, resumed: false }
}

/** Completes a partial file and says whether it has the listed hash. */
async function fetchInto(
  partial: string,
  url: string,
  { path, size, oid, sha256 }: HubFile,
  options: Settled & { name: string; headers: Record<string, string> },
): Promise<boolean> {
  const hash = createHash(sha256 === null ? 'sha1' : 'sha256')
  if (sha256 === null) hash.update(`blob ${size}\0`)
  const handle = await open(partial, 'a')
  try {
    let at = (await handle.stat()).size
    if (at > size) {
      await handle.truncate(0)
      at = 0
    }
    if (at > 0) for await (const chunk of createReadStream(partial)) hash.update(chunk as Uint8Array)
    options.onProgress?.(path, at, size)
    for await (const chunk of httpRange(url, { from: at, to: size, byteLength: size }, options)) {
      hash.update(chunk)
      await writeAll(handle, chunk)
      at += chunk.length
      options.onProgress?.(path, at, size)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
  return hash.digest('hex') === (sha256 ?? oid)
}

async function writeAll(handle: Awaited<ReturnType<typeof open>>, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten
  }
}
