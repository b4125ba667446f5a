// Repositories of the Hugging Face hub, or of a mirror that speaks its protocol: what they hold and how it is read. Any runtime.
import { type HttpOptions, httpSource, Refusal, request, UnreachableError } from './http.ts'
import { isObject, show } from './json.ts'
import type { Source } from './source.ts'

export interface HubRepo {
  readonly type: 'dataset' | 'model'
  /** `owner/name`. */
  readonly name: string
  /** Branch, tag or commit; `main` without it. */
  readonly revision?: string
}

export interface HubOptions extends Omit<HttpOptions, 'name' | 'headers'> {
  /** Base URL of the hub or a mirror. */
  readonly endpoint?: string
  /** Access token; it is sent to the endpoint only. */
  readonly token?: string
}

export interface HubFile {
  readonly path: string
  readonly size: number
  /** SHA-1 of the file as a git blob; for a large file that of its pointer. */
  readonly oid: string
  /** SHA-256 of a large file, null for others. */
  readonly sha256: string | null
}

/** The files of a repository at a commit. */
export interface HubListing {
  readonly commit: string
  readonly files: readonly HubFile[]
}

export const HUB_ENDPOINT = 'https://huggingface.co'

/** How errors call a file of a repository. */
export function hubName({ type, name }: HubRepo, path = ''): string {
  return `hub ${type} ${name}${path === '' ? '' : `/${path}`}`
}

/** Throws unless the repository is called `owner/name` (or `name`) in the characters that the hub allows. */
export function checkRepo({ name, revision = 'main' }: HubRepo): void {
  if (!/^([\w-][\w.-]*\/)?[\w-][\w.-]*$/.test(name))
    throw new Error(`hub: a repository is owner/name, got ${show(name)}`)
  if (revision === '' || /\.\.|[^\w./-]/.test(revision)) throw new Error(`hub: ${show(revision)} is not a revision`)
}

/** Lists all files of a repository, at the commit that its revision is at now. Throws on what is missing or refused. */
export async function listHub(repo: HubRepo, options: HubOptions = {}): Promise<HubListing> {
  checkRepo(repo)
  const { endpoint = HUB_ENDPOINT } = options
  const { listFiles } = await import('@huggingface/hub')
  const get = hubFetch(repo, options)
  const revision = encodeURIComponent(repo.revision ?? 'main')
  const info: unknown = await (await get(`${endpoint}/api/${repo.type}s/${repo.name}/revision/${revision}`)).json()
  const commit = isObject(info) ? info.sha : undefined
  if (typeof commit !== 'string' || !/^[0-9a-f]{40}$/.test(commit)) {
    throw new Error(`${hubName(repo)}: the hub must name the commit as "sha", got ${show(commit)}`)
  }
  const files: HubFile[] = []
  const where = { type: repo.type, name: repo.name } as const
  for await (const entry of listFiles({
    repo: where,
    revision: commit,
    recursive: true,
    hubUrl: endpoint,
    fetch: get,
  })) {
    if (entry.type !== 'file') continue
    const file = {
      path: entry.path,
      size: entry.lfs?.size ?? entry.size,
      oid: `${entry.oid}`,
      sha256: entry.lfs?.oid ?? null,
    }
    files.push(checkFile(file, repo))
  }
  return { commit, files: files.sort((a, b) => (a.path < b.path ? -1 : 1)) }
}

/** What a server says ends up in paths on the disk, so it is checked. */
export function checkFile(file: HubFile, repo: HubRepo): HubFile {
  const { path, size, oid, sha256 } = file
  const safe = typeof path === 'string' && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  const hashes = /^[0-9a-f]{40}$/.test(oid) && (sha256 === null || /^[0-9a-f]{64}$/.test(sha256))
  if (safe && hashes && Number.isSafeInteger(size) && size >= 0) return file
  throw new Error(`${hubName(repo)}: the hub lists a file in a form that is not understood: ${show(file)}`)
}

/** Files whose path fits `pattern`: `*` stands for any characters but `/`, `**` for any. Throws where none does. */
export function matchHub(repo: HubRepo, listing: HubListing, pattern: string): HubFile[] {
  const source = pattern
    .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
    .replace(/\*+/g, (stars) => (stars === '*' ? '[^/]*' : '.*'))
  const found = listing.files.filter(({ path }) => new RegExp(`^${source}$`).test(path))
  if (found.length > 0) return found
  const some = listing.files.slice(0, 8).map(({ path }) => show(path))
  const rest = listing.files.length > 8 ? ` and ${listing.files.length - 8} more` : ''
  throw new Error(`${hubName(repo)}: has no file ${show(pattern)}, it has ${some.join(', ') || 'none'}${rest}`)
}

/** Where the bytes of a file are. */
export function hubUrl(repo: HubRepo, commit: string, path: string, endpoint = HUB_ENDPOINT): string {
  const place = repo.type === 'model' ? '' : `${repo.type}s/`
  return `${endpoint}/${place}${repo.name}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`
}

/** Opens a file of a repository by byte ranges, without a copy on the disk. */
export async function hubSource(repo: HubRepo, path: string, options: HubOptions = {}): Promise<Source> {
  checkRepo(repo)
  const url = hubUrl(repo, encodeURIComponent(repo.revision ?? 'main'), path, options.endpoint)
  return httpSource(url, { ...options, headers: tokenHeader(options), name: hubName(repo, path) })
}

/** Fetch drops it where a redirect leads to another host. */
export function tokenHeader({ token }: HubOptions): Record<string, string> {
  return token === undefined || token === '' ? {} : { Authorization: `Bearer ${token}` }
}

/** The address of a hub or mirror without slashes at its end; `what` gave it. Throws where it is none of http or https. */
export function hubEndpoint(address: string, what: string): string {
  const url = URL.canParse(address) ? new URL(address) : null
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return address.replace(/\/+$/, '')
  throw new Error(`${what}: must be an address as ${HUB_ENDPOINT} is, got ${show(address)}`)
}

/** A fetch for the hub's API: repeats, explains, and gives the token to the endpoint alone. */
function hubFetch(repo: HubRepo, options: HubOptions): (input: string | URL | Request) => Promise<Response> {
  const { endpoint = HUB_ENDPOINT } = options
  return async (input) => {
    const url = input instanceof Request ? input.url : `${input}`
    const own = new URL(url).origin === new URL(endpoint).origin
    const headers = own ? tokenHeader(options) : {}
    try {
      return await request(url, {
        ...options,
        name: hubName(repo),
        headers: { Accept: 'application/json', ...headers },
      })
    } catch (error) {
      if (error instanceof UnreachableError || error instanceof Refusal) throw error
      throw new Error(`${hubName(repo)}: ${(error as Error).message}`)
    }
  }
}
