// Runs everything that is checked, or the parts named, and counts: npm test [-- build types lint <test file> browser]
//
// Every test file is a process of its own; it passes when it says so by uvu's counts and by its exit code alike.

import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const MINUTE = 60_000

/** A process to run. A `check` counts as one test, passed by exit code 0; the others print uvu's counts. */
interface Step {
  readonly name: string
  readonly command: readonly string[]
  readonly check: boolean
  readonly limitMs: number
}

/** What a step came to; `problems` are those that no test reported. */
interface Result {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly problems: readonly string[]
}

function listSteps(): Step[] {
  const npm = (name: string, script: string) => ({
    name,
    command: ['npm', 'run', '-s', script],
    check: true,
    limitMs: 5 * MINUTE,
  })
  const uvu = (name: string, file: string, minutes: number) => ({
    name,
    command: [process.execPath, '--import', 'tsx', file],
    check: false,
    limitMs: minutes * MINUTE,
  })
  const files = readdirSync(join(ROOT, 'test')).filter((file) => file.endsWith('.test.ts'))
  return [
    npm('build', 'build'),
    npm('types', 'types'),
    npm('lint', 'lint'),
    ...files.sort().map((file) => uvu(file.replace(/\.test\.ts$/, ''), `test/${file}`, 8)),
    uvu('browser', 'test/browser/run.ts', 20),
  ]
}

let running: ChildProcess | null = null

/** Ends a process with all that it started; it leads a process group of its own where there are such. */
function kill(child: ChildProcess): void {
  if (child.pid === undefined) return
  try {
    if (process.platform === 'win32') child.kill('SIGKILL')
    else process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}

/** Runs a step, showing its output as it comes. */
async function runStep({ name, command, check, limitMs }: Step): Promise<Result> {
  const [program = '', ...args] = command
  const windows = process.platform === 'win32'
  const child = spawn(program, args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: !windows,
    shell: windows && program === 'npm',
  })
  running = child
  let output = ''
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString('latin1')
    process.stdout.write(data)
  })
  child.stderr.on('data', (data: Buffer) => process.stderr.write(data))
  let late = false
  const timer = setTimeout(() => {
    late = true
    kill(child)
  }, limitMs)
  const ended = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`could not be started: ${error.message}`))
    child.once('close', (code, signal) =>
      resolve(code === 0 ? '' : signal ? `was ended by ${signal}` : `exit code ${code}`),
    )
  })
  clearTimeout(timer)
  running = null
  const problem = late ? `not finished after ${limitMs / MINUTE} minutes` : ended
  if (check)
    return {
      passed: problem ? 0 : 1,
      failed: problem ? 1 : 0,
      skipped: 0,
      problems: problem ? [`${name}: ${problem}`] : [],
    }
  return judge(name, stripVTControlCharacters(output), problem)
}

/** Adds up what uvu printed. Anything amiss that uvu did not count as a failure is added as one. */
function judge(name: string, output: string, problem: string): Result {
  const sum = (word: string) =>
    [...output.matchAll(new RegExp(`^ {2}${word}: +(\\d+)$`, 'gm'))].reduce(
      (total, [, digits]) => total + Number(digits),
      0,
    )
  const [total, passed, skipped] = [sum('Total'), sum('Passed'), sum('Skipped')]
  const problems: string[] = []
  // A file may skip all it has when that is opt-in, which it then says itself.
  if (total + skipped === 0) problems.push(`${name}: no test ran`)
  // uvu ends with code 0 when a hook before the tests throws, and runs none of them.
  if (passed < total) problems.push(`${name}: ${total - passed} of ${total} tests failed or did not run`)
  if (problem && problems.length === 0) problems.push(`${name}: ${problem}, although no test failed`)
  else if (problem && total === 0) problems.push(`${name}: ${problem}`)
  return { passed, failed: problems.length > 0 ? Math.max(1, total - passed) : 0, skipped, problems }
}

async function main(names: readonly string[]): Promise<boolean> {
  const all = listSteps()
  const unknown = names.find((name) => !all.some((step) => step.name === name))
  if (unknown) throw new Error(`npm test: there are ${all.map((step) => step.name).join(', ')}, not "${unknown}"`)
  // Tests import generated files and run the built command line, so these are always made anew.
  const steps = names.length > 0 ? all.filter(({ name }) => name === 'build' || names.includes(name)) : all
  const results: Result[] = []
  for (const step of steps) {
    console.log(`\n${step.name}`)
    const start = performance.now()
    const result = await runStep(step)
    results.push(result)
    console.log(`${step.name}: ${((performance.now() - start) / 1000).toFixed(1)} s`)
    if (step.name === 'build' && result.failed > 0) break
  }
  const sum = (key: 'passed' | 'failed' | 'skipped') => results.reduce((total, result) => total + result[key], 0)
  const problems = results.flatMap((result) => result.problems)
  console.log(['', ...problems.map((problem) => `FAILED ${problem}`)].join('\n'))
  const [passed, failed, skipped] = [sum('passed'), sum('failed'), sum('skipped')]
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  return failed === 0 && passed > 0
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    if (running) kill(running)
    process.exit(1)
  })
}

try {
  process.exitCode = (await main(process.argv.slice(2))) ? 0 : 1
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 2
}
