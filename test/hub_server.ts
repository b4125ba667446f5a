// A local server that speaks the protocol of the Hugging Face hub, and that fails as servers and networks do.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
export const blobSha1 = (bytes: Uint8Array) =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

/** What happens to one request, in the order in which the requests for a path come. */
export interface Fault {
  readonly status?: number
  readonly headers?: Record<string, string>
  /** Bytes of the body after which the connection is cut. */
  readonly cutAfter?: number
  /** The body waits after its first bytes, for ever. */
  readonly stallAfter?: number
  /** Other bytes are sent. */
  readonly body?: Uint8Array
  /** The connection is closed without an answer. */
  readonly hangUp?: boolean
}

export interface HubServer {
  readonly url: string
  /** `METHOD path range` of each request. */
  readonly log: string[]
  /** Authorization headers that came, with the path. */
  readonly tokens: string[]
  /** Files of every dataset; those in `large` are LFS files, which a redirect sends to another path. */
  readonly files: Map<string, Uint8Array>
  readonly large: Set<string>
  /** Faults of paths, used up one by one. */
  readonly faults: Map<string, Fault[]>
  /** Without ranges every answer is the whole file. */
  ranges: boolean
  etags: boolean
  commit: string
  /** Host to which large files are redirected. */
  storage: string
  /** The listing tells another hash for this file. */
  wrongHash: string | null
  close(): Promise<void>
}

const PAGE = 2

export async function startHub(): Promise<HubServer> {
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const hub: HubServer = {
    url,
    log: [],
    tokens: [],
    files: new Map(),
    large: new Set(),
    faults: new Map(),
    ranges: true,
    etags: true,
    commit: 'c'.repeat(40),
    storage: url,
    wrongHash: null,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', url)
    hub.log.push([request.method, pathname, request.headers.range].filter(Boolean).join(' '))
    if (request.headers.authorization) hub.tokens.push(`${pathname} ${request.headers.authorization}`)
    const fault = hub.faults.get(pathname)?.shift() ?? {}
    if (fault.hangUp) return void response.destroy()
    if (fault.status !== undefined) return void response.writeHead(fault.status, fault.headers).end('no')
    const [, api, kind] = /^\/api\/datasets\/([^/]+\/[^/]+)\/(revision|tree)\//.exec(pathname) ?? []
    if (kind === 'revision') return void json(response, { _id: '1', id: api, sha: hub.commit, private: false })
    if (kind === 'tree') return list(response, pathname, Number(searchParams.get('cursor')))
    const path = /^\/datasets\/[^/]+\/[^/]+\/resolve\/[^/]+\/(.+)$/.exec(pathname)?.[1]
    const file = decodeURIComponent(path ?? /^\/(?:storage|files)\/(.+)$/.exec(pathname)?.[1] ?? '')
    const bytes = hub.files.get(file)
    if (!bytes) return void response.writeHead(404).end('Entry not found')
    if (path && hub.large.has(file)) {
      const linked = { 'X-Linked-Etag': `"${sha256(bytes)}"`, 'X-Linked-Size': `${bytes.length}` }
      return void response.writeHead(302, { Location: `${hub.storage}/storage/${path}`, ...linked }).end()
    }
    await send(request, response, fault.body ?? bytes, fault)
  }

  function list(response: ServerResponse, path: string, cursor: number): void {
    const entries = [...hub.files]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([path, bytes]) => {
        const wrong = path === hub.wrongHash
        const oid = wrong ? '0'.repeat(40) : blobSha1(bytes)
        const lfs = { oid: wrong ? '0'.repeat(64) : sha256(bytes), size: bytes.length, pointerSize: 130 }
        return { type: 'file', oid, size: bytes.length, path, ...(hub.large.has(path) ? { lfs } : {}) }
      })
    const next = cursor + PAGE
    const link = `<${url}${path}?recursive=true&cursor=${next}>; rel="next"`
    const headers: Record<string, string> = next < entries.length ? { Link: link } : {}
    json(response, [{ type: 'directory', oid: 'd', size: 0, path: 'data' }, ...entries.slice(cursor, next)], headers)
  }

  function json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
    response.writeHead(200, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(value))
  }

  async function send(
    request: IncomingMessage,
    response: ServerResponse,
    bytes: Uint8Array,
    { cutAfter, stallAfter, headers }: Fault,
  ): Promise<void> {
    const etag: Record<string, string> = hub.etags ? { ETag: `"${sha256(bytes).slice(0, 16)}"` } : {}
    const asked = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    const fresh = request.headers['if-range'] === undefined || request.headers['if-range'] === etag.ETag
    let body = bytes
    if (asked && hub.ranges && fresh) {
      const from = Number(asked[1])
      const to = Math.min(asked[2] === '' ? bytes.length : Number(asked[2]) + 1, bytes.length)
      if (from >= bytes.length)
        return void response.writeHead(416, { 'Content-Range': `bytes */${bytes.length}` }).end()
      body = bytes.subarray(from, to)
      const range = { 'Content-Range': `bytes ${from}-${to - 1}/${bytes.length}`, 'Content-Length': body.length }
      response.writeHead(206, { ...range, ...etag, ...headers })
    } else response.writeHead(200, { 'Content-Length': body.length, ...etag, ...headers })
    const cut = cutAfter ?? stallAfter
    if (cut === undefined || cut >= body.length) return void response.end(body)
    await new Promise((resolve) => response.write(body.subarray(0, cut), resolve))
    // A moment, so that what was written leaves before the connection is cut.
    if (cutAfter !== undefined) setTimeout(() => response.destroy(), 5)
  }

  return hub
}
