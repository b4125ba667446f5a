// The web server of the browser tests: a page, the bundled test files, the fixtures and the embedded model, read-only.

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, sep } from 'node:path'

const FOLDERS = ['/test/fixtures/', '/models/nano/', '/models/nano-sft/']
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json' }
// As strict as a page can be that runs WebAssembly and, where there are threads, workers from a text.
const POLICY =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; style-src 'self'"
// With these a page may share memory between threads; they are all that makes it `crossOriginIsolated`.
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
}

/** A running server; `origin` is http://127.0.0.1:port. */
export interface TestServer {
  readonly origin: string
  /** Paths that were asked for. */
  readonly log: string[]
  close(): Promise<void>
}

/**
 * Serves `scripts` by their path, an empty page at /test/ and the folders above from `root`, on a free port. Fixtures are
 * at /test/fixtures/, so that a test finds them beside its page. What it does not have it answers with the page, as servers of
 * single-page applications do, and everything comes with a strict policy.
 */
export async function startServer(
  root: string,
  scripts: Map<string, Uint8Array>,
  isolated: boolean,
): Promise<TestServer> {
  const page = new TextEncoder().encode(
    '<!doctype html><title>tests</title><script src="page.js" type="module"></script>',
  )

  async function find(path: string): Promise<Uint8Array | null> {
    const script = scripts.get(path)
    if (script) return script
    const folder = FOLDERS.find((start) => path.startsWith(start))
    const file = join(root, path)
    if (!folder || !file.startsWith(join(root, folder)) || file.endsWith(sep)) return null
    return await readFile(file).catch(() => null)
  }

  const log: string[] = []
  const server = createServer(async ({ url = '/' }, response) => {
    const path = decodeURIComponent(new URL(url, 'http://localhost').pathname)
    log.push(path)
    const found = await find(path)
    const type = found ? (TYPES[extname(path)] ?? 'application/octet-stream') : 'text/html'
    const isolation = isolated ? ISOLATION : {}
    const body = found ?? page
    const headers = { 'Content-Type': type, 'Content-Length': body.length, 'Content-Security-Policy': POLICY }
    response.writeHead(200, { ...headers, ...isolation })
    response.end(body)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    log,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
