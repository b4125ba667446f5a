// A training that is kept in a folder, for tests of the folder: cut where they want, in stores that crash.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Device } from '../src/device/device.ts'
import { directoryStore } from '../src/files/disk.ts'
import { memoryStore, type Store } from '../src/files/store.ts'
import type { LogEntry } from '../src/train/log.ts'
import { train } from '../src/train/trainer.ts'
import { type FolderOptions, openTrainingFolder } from '../src/train/training_folder.ts'
import { LeastSquares, plan, type Rows, type Tally } from './least_squares.ts'

export const OPTIONS = { batch: 8, micro: 8, epochs: 2 }
export const { steps } = plan(OPTIONS)
export const bytes = (text: string) => new TextEncoder().encode(text)

export interface Run extends Partial<FolderOptions> {
  /** A setting. */
  readonly lr?: number
  /** Interrupts after a step; 0: before the first. */
  readonly stop?: number
  /** Evaluates after every so many steps. */
  readonly evaluateEvery?: number
  /** Interrupts within the evaluation after a step. */
  readonly stopEvaluating?: number
  readonly onEntry?: (entry: LogEntry) => void
}

/** Trains in a store as the recipes do; gives what was reached, and whether anything was computed. */
export async function run(
  device: Device,
  store: Store,
  { lr = 0.05, stop, evaluateEvery, stopEvaluating, onEntry, ...options }: Run = {},
) {
  const folder = await openTrainingFolder(store, {
    command: 'toy',
    settings: { '--lr': lr },
    saveEvery: { steps: 3, seconds: Infinity },
    ...options,
  })
  try {
    if (folder.result) return { result: folder.result, made: 0 }
    const task = new LeastSquares(device, OPTIONS)
    let made = 0
    const interrupt = new AbortController()
    const evaluate = task.evaluate.bind(task)
    task.evaluate = async (tally, step, signal) => {
      const found = await evaluate(tally, step)
      if (step === stopEvaluating) interrupt.abort(new Error('stop'))
      signal?.throwIfAborted()
      return found
    }
    const last = await train<Rows, number, Tally>({
      device,
      task,
      keeper: folder,
      signal: interrupt.signal,
      settings: { lr, schedule: 'cosine', warmup: 0, weightDecay: 0.1, maxGradNorm: 1, steps, evaluateEvery },
      onEntry,
      onBegin({ step }) {
        if (step === stop) interrupt.abort(new Error('stop'))
      },
      onStep({ step }) {
        made++
        if (step === stop) interrupt.abort(new Error('stop'))
      },
    })
    const weights = await task.parameters[0].value.readF32()
    await folder.finish(modelFiles(weights), { steps: last.step, rows: last.tally.rows })
    task.destroy()
    return { result: { steps: last.step, rows: last.tally.rows }, made }
  } finally {
    await folder.close()
  }
}

async function* modelFiles(weights: Float32Array) {
  yield { file: 'config.json', chunks: [bytes('{}\n')] }
  yield { file: 'model.safetensors', chunks: [new Uint8Array(weights.buffer)] }
}

export async function contents(store: Store): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for (const name of await store.list()) {
    const source = (await store.open(name))!
    files[name] = Buffer.from(await source.read(0, source.byteLength)).toString('base64')
    await source.close()
  }
  return files
}

/** A store whose process ends at its change number `after`; what is appended then is half there. */
export function crashing(store: Store, after: number): Store & { readonly changes: () => number } {
  let changes = 0
  const change = async (work: () => Promise<void>, half: () => Promise<void> = async () => {}) => {
    if (changes > after) throw new Error('crash')
    if (changes++ === after) {
      await half()
      throw new Error('crash')
    }
    await work()
  }
  return {
    ...store,
    changes: () => changes,
    write: (file, chunks) => change(() => store.write(file, chunks)),
    append: (file, length, added) =>
      change(
        () => store.append(file, length, added),
        () => store.append(file, length, added.subarray(0, added.length >> 1)),
      ),
    rename: (file, to) => change(() => store.rename(file, to)),
    remove: (file) => change(() => store.remove(file)),
  }
}

/** Runs with a store in memory and with one on the disk. */
export async function withStores(work: (make: () => Store) => Promise<void>): Promise<void> {
  let made = 0
  await work(() => memoryStore(`memory${made++}`))
  const folder = await mkdtemp(join(tmpdir(), 'pinball-training-'))
  try {
    await work(() => directoryStore(join(folder, String(made++))))
  } finally {
    await rm(folder, { recursive: true })
  }
}
