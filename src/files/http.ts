// Files over HTTP: read by byte ranges, with requests that are repeated and short answers that are resumed. Any runtime.
import { printable } from './json.ts'
import { checkRange, joinBytes, type ModelFiles, memorySource, type Source } from './source.ts'

export interface HttpOptions {
  /** Instead of the global fetch: for proxies and tests. */
  readonly fetch?: typeof fetch
  readonly headers?: Readonly<Record<string, string>>
  /** How often in a row a request may fail without a byte having come; 5 without it. */
  readonly retries?: number
  /** The first pause before another try in milliseconds; it doubles up to 30 s. 500 without it. */
  readonly backoffMs?: number
  /** Milliseconds without a byte after which a connection counts as dropped; 60,000 without it. */
  readonly stallMs?: number
  /** What errors call the file; its URL without it. */
  readonly name?: string
  /** Ends requests and pauses with its reason. */
  readonly signal?: AbortSignal
}

export interface HttpSourceOptions extends HttpOptions {
  /** The largest file that is read whole from a server without ranges; 512 MiB without it. */
  readonly wholeLimitBytes?: number
}

/** A server that cannot be reached, as opposed to one that refuses. */
export class UnreachableError extends Error {}

const PAUSE_LIMIT_MS = 30_000
const WHOLE_LIMIT_BYTES = 512 * 2 ** 20

/**
 * Opens a file at a URL. Its size comes from the first range; a server without ranges has it read whole, up to a limit. Reads repeat
 * what fails for a passing reason (dropped and stalled connections, 408, 429, 5xx), resume short answers, and throw, with the
 * file's name, on what is refused or missing and where the file changes (ETag, length) between reads.
 */
export async function httpSource(url: string, options: HttpSourceOptions = {}): Promise<Source> {
  const { wholeLimitBytes = WHOLE_LIMIT_BYTES } = options
  const name = options.name ?? shownUrl(url)
  const first = await request(url, { ...options, name }, { Range: 'bytes=0-0' })
  if (first.status === 416) {
    await discard(first)
    if (totalOf(first) === 0) return memorySource(name, new Uint8Array(0))
    throw new Error(`${name}: the server refuses byte ranges (416); download the file and give its path`)
  }
  if (first.status === 206) {
    await discard(first)
    const byteLength = totalOf(first)
    // A server of another origin must allow a page to see Content-Range; a whole answer needs no such leave.
    if (byteLength === null) return memorySource(name, await readWhole(url, { ...options, name }, wholeLimitBytes))
    const etag = strongEtag(first)
    return {
      name,
      byteLength,
      async read(offset, length) {
        checkRange({ name, byteLength }, offset, length)
        const bytes = new Uint8Array(length)
        let done = 0
        for await (const chunk of httpRange(url, { from: offset, to: offset + length, byteLength, etag }, options)) {
          bytes.set(chunk, done)
          done += chunk.length
        }
        return bytes
      },
      async close() {},
    }
  }
  await discard(first)
  return memorySource(name, await readWhole(url, { ...options, name }, wholeLimitBytes))
}

/**
 * A model directory on a server: `base` is its address, to which file names are added (a query stays behind them). Relative addresses
 * are those of a page. Files for which the server answers 404 or 410, or with a web page, are absent; nothing is asked before a file is opened.
 */
export function httpFiles(base: string, options: Omit<HttpSourceOptions, 'name'> = {}): ModelFiles {
  const url = new URL(base, globalThis.location?.href)
  const folder = url.pathname.replace(/\/+$/, '')
  return {
    name: shownUrl(url.href).replace(/\/+$/, ''),
    async open(file) {
      const address = new URL(url)
      address.pathname = `${folder}/${encodeURIComponent(file)}`
      return httpSource(address.href, options).catch((error) => {
        if (isAbsent(error)) return null
        throw error
      })
    },
  }
}

export interface HttpRange {
  /** The first byte. */
  readonly from: number
  /** The byte after the last. */
  readonly to: number
  /** Length of the whole file; another one in an answer means that the file has changed. */
  readonly byteLength: number
  /** A strong ETag that answers must have, or null. */
  readonly etag?: string | null
}

/** Yields exactly the bytes [from, to) of the file at `url`; connections that drop are taken up where they ended. */
export async function* httpRange(url: string, range: HttpRange, options: HttpOptions): AsyncGenerator<Uint8Array> {
  const { to, byteLength } = range
  const name = options.name ?? shownUrl(url)
  let { from, etag = null } = range
  let failures = 0
  while (from < to) {
    const headers: Record<string, string> = { Range: `bytes=${from}-${to - 1}` }
    // A page would have to ask another origin first whether it may send this header, at every range.
    if (etag !== null && !isForeign(url)) headers['If-Range'] = etag
    const response = await request(url, { ...options, name }, headers)
    const changed = `${name}: the file has changed on the server while it was read; start again`
    if (response.status === 416) {
      await discard(response)
      throw new Error(changed)
    }
    // Without ranges the file begins anew: what is already there is passed over.
    let skip = 0
    if (response.status === 206) {
      const begin = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]
      if (Number(begin) !== from || totalOf(response) !== byteLength) {
        await discard(response)
        throw new Error(Number(begin) === from ? changed : `${name}: the server answered with another range than asked`)
      }
    } else if (etag !== null && !isForeign(url)) {
      await discard(response)
      throw new Error(changed)
    } else skip = from
    const found = strongEtag(response)
    if (etag !== null && found !== null && found !== etag) {
      await discard(response)
      throw new Error(changed)
    }
    etag ??= response.status === 206 ? found : null
    const before = from
    try {
      for await (const chunk of bodyChunks(response, options)) {
        const kept = chunk.subarray(Math.min(skip, chunk.length), Math.min(chunk.length, skip + to - from))
        skip -= Math.min(skip, chunk.length)
        if (kept.length === 0) continue
        from += kept.length
        yield kept
        if (from === to) return
      }
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error
    }
    failures = from > before ? 0 : failures + 1
    if (failures > (options.retries ?? 5)) {
      throw new UnreachableError(`${name}: the connection drops at byte ${from} again and again; try later`)
    }
    if (failures > 0) await pause(failures - 1, options)
  }
}

/** Fetches until there is an answer that is neither a failure nor passing. Throws on refusals, in words. */
export async function request(
  url: string,
  options: HttpOptions & { readonly name: string },
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  const { fetch: get = fetch, name, signal } = options
  // A page cannot tell a server that forbids it to read from one that is away; that will not change in a second.
  const { retries = isForeign(url) ? 1 : 5 } = options
  for (let failures = 0; ; failures++) {
    let reason: string
    let wait: number | null = null
    try {
      const sent = { 'Accept-Encoding': 'identity', ...options.headers, ...headers }
      const response = await inTime(options, (abort) => get(url, { headers: sent, signal: abort }))
      const { status } = response
      if (status === 200 || status === 206) {
        if (!/^text\/html\b/i.test(response.headers.get('content-type') ?? '')) return response
        await discard(response)
        throw new Refusal(`${name}: the server answers with a web page, not with the file; check the address`, status)
      }
      if (status === 416) return response
      await discard(response)
      if (status !== 408 && status !== 429 && status < 500) throw new Refusal(explainStatus(name, status), status)
      reason = `the server answers ${status}`
      wait = retryAfter(response)
    } catch (error) {
      signal?.throwIfAborted()
      if (error instanceof Refusal) throw error
      // Another try would be redirected in the same way.
      if (/redirect count/.test(explainFailure(error)))
        throw new Refusal(`${name}: the server redirects in a circle`, 508)
      reason = explainFailure(error)
      if (isForeign(url))
        reason += `, or its server does not let this page read it (CORS: Access-Control-Allow-Origin must name ${globalThis.location.origin})`
    }
    if (failures >= retries) {
      throw new UnreachableError(`${name}: ${reason}, ${failures + 1} times; check the connection or try later`)
    }
    await pause(failures, options, wait)
  }
}

/** Runs a fetch that ends when there is no answer in time, and with the caller's signal. */
async function inTime<T>(
  { signal, stallMs = 60_000 }: HttpOptions,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted()
  const abort = new AbortController()
  const end = () => abort.abort(signal?.reason)
  const timer = setTimeout(end, stallMs)
  signal?.addEventListener('abort', end)
  try {
    return await run(abort.signal)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', end)
  }
}

/** Whether a page of another origin asks. */
function isForeign(url: string): boolean {
  const origin = globalThis.location?.origin
  return origin !== undefined && origin !== 'null' && new URL(url, globalThis.location.href).origin !== origin
}

/** Whether an error says that there is no such file: many servers answer what they do not have with a web page. */
export function isAbsent(error: unknown): boolean {
  return error instanceof Refusal && [404, 410, 200, 206].includes(error.status)
}

/** An answer that another try would not change. */
export class Refusal extends Error {
  readonly status: number

  constructor(message: string, status: number) {
    super(message)
    this.status = status
  }
}

function explainStatus(name: string, status: number): string {
  if (status === 404 || status === 410)
    return `${name}: not found on the server (${status}); check the name and revision`
  if (status === 401 || status === 403) {
    return `${name}: the server refuses access (${status}); a private or gated file needs a token that may read it`
  }
  return `${name}: the server answers ${status}`
}

function explainFailure(error: unknown): string {
  const { name, message, cause } = error as Error & { cause?: { code?: string; message?: string } }
  if (name === 'AbortError') return 'the server does not answer'
  return `the server cannot be reached (${printable(cause?.code ?? cause?.message ?? message)})`
}

/** The chunks of a body; a connection that drops or stalls is an UnreachableError. */
async function* bodyChunks(response: Response, { stallMs = 60_000, signal }: HttpOptions): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader()
  if (!reader) return
  try {
    for (;;) {
      signal?.throwIfAborted()
      let timer: ReturnType<typeof setTimeout> | undefined
      const stalled = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error('stalled')), stallMs)
      })
      const { value, done } = await Promise.race([reader.read(), stalled])
        .catch((error: Error) => {
          throw new UnreachableError(error.message)
        })
        .finally(() => clearTimeout(timer))
      if (done) return
      yield value
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

/**
 * Reads a whole file. Throws where it has more than `limit` bytes, from its announced length where there is one. `onBytes` hears how
 * many have come, of how many (null where the server does not say).
 */
export async function readWhole(
  url: string,
  options: HttpOptions & { name: string },
  limit: number,
  onBytes: (bytes: number, total: number | null) => void = () => {},
): Promise<Uint8Array> {
  for (let failures = 0; ; failures++) {
    const response = await request(url, options)
    const announced = response.headers.get('content-length')
    const total = announced === null ? null : Number(announced)
    if (total !== null && total > limit) {
      await discard(response)
      throw new TooLarge(
        `${options.name}: has ${total} bytes, more than the ${limit} that are read whole, and the server gives no byte ranges; download it and give its path`,
        total,
      )
    }
    const encoded = response.headers.get('content-encoding') ?? 'identity'
    const parts: Uint8Array[] = []
    let bytes = 0
    let dropped = false
    try {
      for await (const chunk of bodyChunks(response, options)) {
        parts.push(chunk)
        bytes += chunk.length
        onBytes(bytes, total)
        if (bytes > limit)
          throw new Error(`${options.name}: has more than ${limit} bytes; download it and give its path`)
      }
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error
      dropped = true
    }
    dropped ||= announced !== null && encoded === 'identity' && Number(announced) !== bytes
    if (!dropped) return joinBytes(parts)
    if (failures >= (options.retries ?? 5)) {
      throw new UnreachableError(
        `${options.name}: the connection drops after ${bytes} bytes again and again; try later`,
      )
    }
    await pause(failures, options)
  }
}

/** A file that is larger than what may be read whole. */
export class TooLarge extends Error {
  readonly bytes: number

  constructor(message: string, bytes: number) {
    super(message)
    this.bytes = bytes
  }
}

async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {})
}

function totalOf(response: Response): number | null {
  const total = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1]
  return total === undefined ? null : Number(total)
}

/** Only a strong ETag promises equal bytes. */
function strongEtag(response: Response): string | null {
  const etag = response.headers.get('etag')
  return etag?.startsWith('"') ? etag : null
}

function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  return seconds >= 0 ? Math.min(seconds * 1000, PAUSE_LIMIT_MS) : null
}

function pause(failures: number, { backoffMs = 500, signal }: HttpOptions, wait: number | null = null): Promise<void> {
  const time = wait ?? Math.min(backoffMs * 2 ** failures, PAUSE_LIMIT_MS)
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end)
      resolve()
    }, time)
    if (signal?.aborted) end()
    else signal?.addEventListener('abort', end, { once: true })
  })
}

/** A URL without what may be secret: user, password and query. */
export function shownUrl(url: string): string {
  return printable(url.replace(/^(\w+:\/\/)[^/@]*@/, '$1').replace(/[?#].*$/, ''))
}
