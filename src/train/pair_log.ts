// What training on pairs counts and logs.

/** What a number of pairs came to. */
export interface Sums {
  readonly pairs: number
  readonly loss: number
  readonly correct: number
}

export const NO_PAIRS: Sums = { pairs: 0, loss: 0, correct: 0 }

/** Adds a batch: a pair counts as correct where its margin is above 0, so that a tie does not. */
export function addBatch(sums: Sums, losses: Float32Array, margins: Float32Array): Sums {
  let { loss, correct } = sums
  for (const value of losses) loss += value
  for (const margin of margins) if (margin > 0) correct++
  return { pairs: sums.pairs + losses.length, loss, correct }
}

/** Mean loss and accuracy. */
export function means({ pairs, loss, correct }: Sums): { readonly loss: number; readonly accuracy: number } {
  return { loss: loss / pairs, accuracy: correct / pairs }
}

/** An epoch as the log and the command's JSON show it; `loss` and `accuracy` are over its training steps, as they were. */
export interface EpochResult {
  /** From 1. */
  readonly epoch: number
  readonly loss: number
  readonly accuracy: number
  /** With the running statistics, after the epoch; null without validation. */
  readonly validation_loss: number | null
  readonly validation_accuracy: number | null
}

/** Steps since the last line of their kind; `lr` is that of the last one. */
export interface StepMeans {
  /** From 1. */
  readonly step: number
  readonly epoch: number
  readonly lr: number
  readonly loss: number
  readonly accuracy: number
}

/** A line of the log of a training on pairs. */
export type PairEntry = StepMeans | (EpochResult & { readonly step: number })

/** What a training on pairs has come to, saved with its position. */
export interface PairTally {
  /** Since the last line of the log. */
  readonly recent: Sums
  /** Of the epoch under way. */
  readonly epoch: Sums
  /** Epochs done. */
  readonly epochs: readonly EpochResult[]
}
