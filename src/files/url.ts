// A model directory at an address, for pages and services: each file is fetched once, whole where that fits, kept in the browser's
// cache, with progress and a signal.
import { type HttpSourceOptions, httpSource, isAbsent, readWhole, shownUrl, TooLarge } from './http.ts'
import { type ModelFiles, memorySource, type Source } from './source.ts'

/** Where files that have been fetched are kept. */
export interface UrlCache {
  /** The file of an address; null where it is known that there is none, undefined where nothing is known. */
  get(url: string): Promise<Uint8Array | null | undefined>
  put(url: string, file: Uint8Array | null): Promise<void>
}

export interface UrlProgress {
  readonly file: string
  /** Bytes of the file that have come, and in all; null where the server does not say. */
  readonly bytes: number
  readonly total: number | null
  /** Whether it came from the cache. */
  readonly cached: boolean
}

export interface UrlOptions extends Omit<HttpSourceOptions, 'name'> {
  /**
   * Where files are kept from one visit to the next: by default the browser's Cache storage under "pinball" where a page has one, and
   * nowhere else; false: nowhere. What is kept is not asked for again: give another address to a changed model, or `refresh`.
   */
  readonly cache?: UrlCache | false
  /** Fetches again what the cache has. */
  readonly refresh?: boolean
  readonly onProgress?: (progress: UrlProgress) => void
}

/** Files up to this size stay in memory: models ask for them more than once. */
const KEPT_BYTES = 8 * 2 ** 20
/** Files above are read by ranges as they are needed, and not kept. */
const WHOLE_LIMIT_BYTES = 512 * 2 ** 20

/**
 * A model directory at an address, to which file names are added (a query stays behind them); relative addresses are those of a page.
 * A file is one request, made when it is opened first; one that the server does not have, or answers with a web page, is absent. Opens
 * throw as `httpSource` does, and with the reason of `signal`.
 */
export function openUrl(base: string | URL, options: UrlOptions = {}): ModelFiles {
  const { refresh = false, onProgress = () => {}, wholeLimitBytes = WHOLE_LIMIT_BYTES, ...http } = options
  const cache = options.cache === undefined ? pageCache() : options.cache || null
  const url = new URL(base, globalThis.location?.href)
  const folder = url.pathname.replace(/\/+$/, '')
  const name = shownUrl(url.href).replace(/\/+$/, '')
  const opened = new Map<string, Promise<Uint8Array | Source | null>>()

  async function fetchFile(file: string): Promise<Uint8Array | Source | null> {
    const place = new URL(url)
    place.pathname = `${folder}/${encodeURIComponent(file)}`
    const address = place.href
    const kept = refresh ? undefined : await cache?.get(address)
    if (kept !== undefined) {
      if (kept) onProgress({ file, bytes: kept.length, total: kept.length, cached: true })
      return kept
    }
    const named = { ...http, name: shownUrl(address) }
    try {
      const bytes = await readWhole(address, named, wholeLimitBytes, (bytes, total) =>
        onProgress({ file, bytes, total, cached: false }),
      )
      await cache?.put(address, bytes)
      return bytes
    } catch (error) {
      if (error instanceof TooLarge) return httpSource(address, { ...named, wholeLimitBytes })
      if (!isAbsent(error)) throw error
      await cache?.put(address, null)
      return null
    }
  }

  return {
    name,
    async open(file) {
      const known = opened.get(file) ?? fetchFile(file)
      opened.set(file, known)
      // What failed may be tried again.
      known.catch(() => opened.delete(file))
      const found = await known
      if (!(found instanceof Uint8Array)) return found
      if (found.length > KEPT_BYTES) opened.delete(file)
      return memorySource(`${name}/${file}`, found)
    },
  }
}

const ABSENT = 'x-pinball-absent'

/** The browser's Cache storage; null where there is none, as in Node and in pages without https. */
function pageCache(): UrlCache | null {
  // TypeScript knows it in pages only.
  const { caches } = globalThis as { readonly caches?: CacheStorage }
  if (!caches) return null
  return {
    async get(url) {
      const kept = await (await caches.open('pinball')).match(url)
      if (!kept) return undefined
      return kept.headers.has(ABSENT) ? null : new Uint8Array(await kept.arrayBuffer())
    },
    async put(url, file) {
      const body = file && new Uint8Array(file)
      const headers: Record<string, string> = file ? {} : { [ABSENT]: '1' }
      // Storage may be full or forbidden; then the next visit fetches again.
      await caches
        .open('pinball')
        .then((cache) => cache.put(url, new Response(body, { headers })))
        .catch(() => {})
    },
  }
}
