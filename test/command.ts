// Runs the built command as a child process, in a folder of its own that is removed at the end.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import { encodeSafetensors, type TensorData } from '../src/files/safetensors.ts'
import { random } from './random.ts'

export const root = fileURLToPath(new URL('..', import.meta.url))
/** A small random QRM model without a tokenizer: 97 ids, 1024 positions, 19 attributes at 19 levels. */
export const qrm = join(root, 'test/fixtures/qrm/debiased')
/** Options that make a command quick to start and equal everywhere. */
export const WASM = ['--device', 'wasm', '--threads', '1']

export interface Ended {
  code: number | null
  out: string
  err: string
}

export interface Workplace {
  /** Current directory of the commands. */
  readonly folder: string
  /** Starts `pinball` with these arguments and this standard input. */
  launch(args: readonly string[], stdin?: string): ChildProcess
  /** Runs `pinball` to its end. */
  pinball(args: readonly string[], stdin?: string): Promise<Ended>
  /** Runs a command that must fail: this message on one line, nothing on standard output, this exit code. */
  refused(args: readonly string[], message: string | RegExp, code?: number, stdin?: string): Promise<void>
  /** Writes a text file into the folder and gives its name. */
  file(name: string, text: string): Promise<string>
  /** Writes a safetensors file into the folder. */
  save(name: string, tensors: TensorData[], metadata?: Record<string, string>): Promise<void>
  remove(): Promise<void>
}

/** Builds the command and makes a folder to run it in. */
export async function openWorkplace(): Promise<Workplace> {
  await import('../build.ts')
  const folder = await mkdtemp(join(tmpdir(), 'pinball-cli-'))
  const launch = (args: readonly string[], stdin = '') => {
    const child = spawn(process.execPath, [join(root, 'dist/pinball.js'), ...args], { cwd: folder, stdio: 'pipe' })
    child.stdin.on('error', () => {}) // it may end without reading
    child.stdin.end(stdin)
    return child
  }
  const pinball = (args: readonly string[], stdin?: string) => finish(launch(args, stdin))
  return {
    folder,
    launch,
    pinball,
    async refused(args, message, code = 1, stdin) {
      const { code: found, out, err } = await pinball(args, stdin)
      const fits = typeof message === 'string' ? err === `pinball: ${message}\n` : message.test(err)
      if (fits && /^pinball: [^\n]+\n$/.test(err) && out === '' && found === code) return
      throw new Error(`expected exit ${code} and ${message}, got ${JSON.stringify({ code: found, out, err })}`)
    },
    async file(name, text) {
      await writeFile(join(folder, name), text)
      return name
    },
    save: (name, tensors, metadata = {}) =>
      writeFile(join(folder, name), Buffer.concat(encodeSafetensors(tensors, metadata))),
    remove: () => rm(folder, { recursive: true }),
  }
}

/** Gathers what a child process prints until it ends. */
export function finish(child: ChildProcess): Promise<Ended> {
  const ended: Ended = { code: null, out: '', err: '' }
  child.stdout?.on('data', (bytes) => {
    ended.out += bytes
  })
  child.stderr?.on('data', (bytes) => {
    ended.err += bytes
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...ended, code }))
  })
}

/** JSON Lines of rows. */
export const lines = (...rows: unknown[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

/** A tensor for a file; f32 unless said otherwise. */
export const tensor = (
  name: string,
  shape: readonly number[],
  data: TensorData['data'],
  dtype: TensorData['dtype'] = 'F32',
): TensorData => ({ name, dtype, shape, data })

export interface FeatureData {
  embeddings: Float32Array
  labels?: Float32Array
  metadata: Record<string, string>
}

/** Random features [rows, columns] with one label a row, after `changes`, as the bytes of a file for `pinball fit`. */
export function featureFile(
  rows: number,
  columns: number,
  changes: (data: FeatureData) => void = () => {},
): Uint8Array {
  const draw = random(2)
  const data: FeatureData = { embeddings: draw.normal(rows * columns), labels: draw.uniform(rows), metadata: {} }
  changes(data)
  const tensors: TensorData[] = [tensor('embeddings', [rows, columns], data.embeddings)]
  if (data.labels) tensors.push(tensor('labels', [data.labels.length, 1], data.labels))
  return Buffer.concat(encodeSafetensors(tensors, data.metadata))
}

/** Registers one test for a table of cases, whose first field is a name, run a few at a time; all that fail are named. */
export function each<T extends readonly [string, ...unknown[]]>(
  title: string,
  cases: readonly T[],
  work: (entry: T, index: number) => Promise<void>,
): void {
  test(`${title} ${cases.map(([name]) => name).join(', ')}`, async () => {
    const failures: string[] = []
    let next = 0
    const lane = async () => {
      while (next < cases.length) {
        const i = next++
        await work(cases[i], i).catch((error: Error) => failures.push(`${title} ${cases[i][0]}: ${error.message}`))
      }
    }
    await Promise.all(Array.from({ length: availableParallelism() }, lane))
    if (failures.length > 0) throw new Error(`${failures.length} of ${cases.length} failed:\n${failures.join('\n')}`)
  })
}
