// The order of the rows: which rows each step takes, from any step on, and how a step divides into micro-batches.
import { shuffled } from './random.ts'
import { locateStep, type Plan } from './schedule.ts'

// Streams of random numbers from here on belong to epochs.
const EPOCHS = 2 ** 21

/** The rows of a step. */
export interface StepRows {
  readonly step: number
  readonly rows: Uint32Array
}

export interface OrderOptions {
  readonly seed: number
  /** First step; default 0. */
  readonly from?: number
  /** false: every epoch in the order of `rows`. Default true. */
  readonly shuffle?: boolean
}

/** The rows of each step from a step on; each epoch has a random order of its own, a function of the seed and its number. */
export function* orderRows(
  rows: Uint32Array,
  plan: Plan,
  { seed, from = 0, shuffle = true }: OrderOptions,
): Generator<StepRows> {
  let order = rows
  for (let step = from; step < plan.steps; step++) {
    const { epoch, begin, end } = locateStep(plan, step)
    if (shuffle && (begin === 0 || step === from)) order = shuffled(rows, seed, EPOCHS + epoch)
    yield { step, rows: order.subarray(begin, end) }
  }
}

/** The rows of a step in pieces of at most `size`, in order. */
export function microBatches(rows: Uint32Array, size: number): Uint32Array[] {
  const pieces: Uint32Array[] = []
  for (let at = 0; at < rows.length; at += size) pieces.push(rows.subarray(at, at + size))
  return pieces
}
