// Runs a bundled test file inside a page and returns what uvu counted, instead of leaving it to be read off the console.

/** What uvu counts: `total` leaves out the skipped ones. */
export interface Counts {
  readonly total: number
  readonly passed: number
  readonly skipped: number
}

/** The part of uvu 0.5 that its own command line uses: with UVU_DEFER, `test.run()` only queues the file's tests. */
interface Uvu {
  UVU_DEFER: number
  UVU_INDEX: number
  UVU_QUEUE: (null | (() => Promise<[errors: string | true, passed: number, skipped: number, total: number]>))[][]
}

async function runSuite(script: string): Promise<Counts> {
  const uvu = globalThis as unknown as Uvu
  uvu.UVU_DEFER = 1
  uvu.UVU_INDEX = 0
  uvu.UVU_QUEUE = [[null]]
  await import(script)
  const counts = { total: 0, passed: 0, skipped: 0 }
  for (const run of uvu.UVU_QUEUE[0] ?? []) {
    if (!run) continue
    const [errors, passed, skipped, total] = await run()
    counts.total += total
    counts.passed += passed
    counts.skipped += skipped
    if (errors !== true) console.log(`\n${errors}\n`)
  }
  return counts
}

/** Says what the page's WebGPU is, or null where it has none. */
async function webgpuName(): Promise<string | null> {
  const adapter = await navigator.gpu?.requestAdapter()
  return adapter ? `${adapter.info.vendor} ${adapter.info.architecture}` : null
}

Object.assign(globalThis, { runSuite, webgpuName })
