// The order of the rows: which rows each step takes, from any step on, and how a step divides into micro-batches.
import { shuffled } from '../data/random.ts'
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

/** Cuts sequences, in order, into pieces of at most so many tokens, one sequence at least. */
export function cutByTokens(
  sequences: ArrayLike<number>,
  lengthOf: (sequence: number) => number,
  most: number,
): number[][] {
  const pieces: number[][] = []
  let tokens = 0
  for (let i = 0; i < sequences.length; i++) {
    const own = lengthOf(sequences[i])
    if (pieces.length === 0 || tokens + own > most) {
      pieces.push([])
      tokens = 0
    }
    pieces[pieces.length - 1].push(sequences[i])
    tokens += own
  }
  return pieces
}

export interface PieceOptions {
  readonly seed: number
  readonly shuffle: boolean
  /** Sequences of a micro-batch; null: as many as fit `tokens`. */
  readonly microBatch: number | null
  /** Tokens of a micro-batch where its sequences are not counted. */
  readonly tokens: number
}

/** Gives the micro-batches of a step as lists of sequences; to be asked for every step in order, from any one on. */
export function stepPieces(
  plan: Plan,
  lengthOf: (sequence: number) => number,
  { seed, shuffle, microBatch, tokens }: PieceOptions,
): (step: number) => number[][] {
  const numbers = Uint32Array.from({ length: plan.rows }, (_, i) => i)
  let steps: Generator<StepRows> | null = null
  return (step) => {
    steps ??= orderRows(numbers, plan, { seed, from: step, shuffle })
    const next = steps.next()
    if (next.done || next.value.step !== step) throw new Error(`training: step ${step} comes out of order`)
    const { rows } = next.value
    return microBatch === null
      ? cutByTokens(rows, lengthOf, tokens)
      : microBatches(rows, microBatch).map((piece) => [...piece])
  }
}
