// The web server of the browser tests: a page, the bundled test files, the fixtures and the embedded model, read-only.

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, sep } from 'node:path'

const FOLDERS = ['/test/fixtures/', '/models/nano/']
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json' }
// With these a page may share memory between threads; they are all that makes it `crossOriginIsolated`.
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
}

/** A running server; `origin` is http://127.0.0.1:port. */
export interface TestServer {
  readonly origin: string
  close(): Promise<void>
}

/**
 * Serves `scripts` by their path, an empty page at /test/ and the folders above from `root`, on a free port. Fixtures are
 * at /test/fixtures/, so that a test finds them beside its page.
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
    if (path === '/test/') return page
    const script = scripts.get(path)
    if (script) return script
    const folder = FOLDERS.find((start) => path.startsWith(start))
    const file = join(root, path)
    if (!folder || !file.startsWith(join(root, folder)) || file.endsWith(sep)) return null
    return await readFile(file).catch(() => null)
  }

  const server = createServer(async ({ url = '/' }, response) => {
    const path = decodeURIComponent(new URL(url, 'http://localhost').pathname)
    const body = await find(path)
    const type = path === '/test/' ? 'text/html' : (TYPES[extname(path)] ?? 'application/octet-stream')
    response.writeHead(body ? 200 : 404, { 'Content-Type': type, ...(isolated ? ISOLATION : {}) })
    response.end(body ?? `${path} is not here`)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
