// Runs test files in a real Chromium, on WebGPU and on WASM, and prints what uvu prints in Node:
//   tsx test/browser/run.ts [kernels llama ...]

import { SourceMap, type SourceMapPayload } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { build } from 'esbuild'
import type { Browser, ConsoleMessage } from 'playwright-core'
import { launchChromium } from './chromium.ts'
import type { Counts } from './page.ts'
import { startServer } from './server.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SUITES = [
  'device',
  'steps',
  'threads',
  'kernels',
  'llama',
  'equivalence',
  'reward',
  'make_features',
  'solver',
  'solver_device',
  'trainer',
  'public_recipe',
  'embedded',
  'world',
]
// The second page gets no shared memory, as on a server that sends no isolation headers: WASM runs on one thread.
const PAGES = [
  { name: 'cross-origin isolated', isolated: true },
  { name: 'without shared memory', isolated: false },
]
const LIMIT_MS = 5 * 60_000

/** Bundles the page's script and the test files as a browser would get them: path to contents, source maps included. */
async function bundle(suites: readonly string[]): Promise<Map<string, Uint8Array>> {
  const { outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: [
      { in: 'test/browser/page.ts', out: 'page' },
      ...suites.map((suite) => ({ in: `test/${suite}.test.ts`, out: suite })),
    ],
    outdir: 'test',
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    sourcemap: 'external',
    logLevel: 'error',
  })
  return new Map(outputFiles.map(({ path, contents }) => [path.slice(ROOT.length - 1).replaceAll('\\', '/'), contents]))
}

/** Replaces places in the bundles by places in our files, so that a stack can be read. */
function mapPlaces(text: string, scripts: Map<string, Uint8Array>): string {
  return text.replaceAll(
    /http:\/\/[\d.:]+(\/test\/\w+\.js):(\d+):(\d+)/g,
    (place, path: string, line: string, column: string) => {
      const map = scripts.get(`${path}.map`)
      if (!map) return place
      const payload = JSON.parse(new TextDecoder().decode(map)) as SourceMapPayload
      const origin = new SourceMap(payload).findEntry(Number(line) - 1, Number(column) - 1)
      if (!('originalSource' in origin)) return place
      return `${join('test', origin.originalSource)}:${origin.originalLine + 1}:${origin.originalColumn + 1}`
    },
  )
}

/** Prints console messages of the page: uvu's own without a line break of ours, all others on a line of their own. */
function printer(scripts: Map<string, Uint8Array>): (message: ConsoleMessage) => void {
  let lineStart = true
  return (message) => {
    const raw = mapPlaces(message.text(), scripts)
    const text = process.stdout.isTTY ? raw : stripVTControlCharacters(raw)
    const isUvu = /^(• |✘ |\s*\(\d+ \/ \d+\)\n)$/.test(stripVTControlCharacters(raw))
    process.stdout.write(isUvu ? text : `${lineStart ? '' : '\n'}${text}\n`)
    lineStart = !isUvu || text.endsWith('\n')
  }
}

/** Runs one test file in a page of its own; whatever keeps it from being counted is thrown. */
async function runSuite(
  browser: Browser,
  origin: string,
  suite: string,
  scripts: Map<string, Uint8Array>,
): Promise<Counts> {
  const page = await browser.newPage()
  try {
    const broken = new Promise<never>((_, reject) => {
      page.once('pageerror', (error) => reject(new Error(`uncaught in the page: ${error.stack ?? error.message}`)))
      page.once('crash', () => reject(new Error('the page crashed')))
      setTimeout(() => reject(new Error(`not finished after ${LIMIT_MS / 60_000} minutes`)), LIMIT_MS).unref()
    })
    page.on('console', printer(scripts))
    const result = page
      .goto(`${origin}/test/`, { waitUntil: 'load' })
      .then(() => page.evaluate<Counts>(`runSuite('./${suite}.js')`))
    return await Promise.race([result, broken])
  } finally {
    await page.close()
  }
}

/** Throws where the page is not what it should be; missing WebGPU is a failure, never a reason to skip. */
async function checkPage(browser: Browser, origin: string, isolated: boolean): Promise<string> {
  const page = await browser.newPage()
  try {
    await page.goto(`${origin}/test/`, { waitUntil: 'load' })
    const name = await page.evaluate<string | null>('webgpuName()')
    if (!name) throw new Error('chromium: navigator.gpu gives no adapter; WebGPU must be there')
    const found = await page.evaluate<boolean>('crossOriginIsolated')
    if (found !== isolated) throw new Error(`chromium: crossOriginIsolated must be ${isolated}, it is ${found}`)
    return `Chromium ${browser.version()}, WebGPU on ${name}`
  } finally {
    await page.close()
  }
}

async function main(names: readonly string[]): Promise<boolean> {
  const unknown = names.find((name) => !SUITES.includes(name))
  if (unknown) throw new Error(`browser tests: there are ${SUITES.join(', ')}, not "${unknown}"`)
  const suites = names.length > 0 ? names : SUITES
  const scripts = await bundle(suites)
  const browser = await launchChromium()
  let failed = false
  try {
    for (const { name, isolated } of PAGES) {
      const server = await startServer(ROOT, scripts, isolated)
      try {
        console.log(`\n${await checkPage(browser, server.origin, isolated)}, ${name}`)
        for (const suite of suites) {
          console.log(`\n${suite}`)
          const start = performance.now()
          let counts: Counts
          try {
            counts = await runSuite(browser, server.origin, suite, scripts)
          } catch (error) {
            const text = error instanceof Error ? error.message : String(error)
            console.log(`\n  ${suite} in Chromium: ${mapPlaces(text, scripts)}`)
            counts = { total: 1, passed: 0, skipped: 0 }
          }
          const { total, passed, skipped } = counts
          if (total === 0) console.log(`\n  ${suite} in Chromium: no test ran`)
          if (total === 0 || passed < total) failed = true
          const seconds = ((performance.now() - start) / 1000).toFixed(1)
          console.log(
            `\n  Total:     ${total}\n  Passed:    ${passed}\n  Skipped:   ${skipped}\n  Duration:  ${seconds} s`,
          )
        }
      } finally {
        await server.close()
      }
    }
  } finally {
    await browser.close()
  }
  return !failed
}

process.exitCode = (await main(process.argv.slice(2))) ? 0 : 1
