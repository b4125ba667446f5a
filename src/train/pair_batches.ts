// Batches of pairs: the split by prompt, and the order of training and validation.

import { randomBits } from '../data/random.ts'
import type { PairFile } from '../reward/pair_file.ts'
import { orderRows } from './data_order.ts'
import { type Plan, planSteps } from './schedule.ts'

// A stream of random numbers between those of initial weights and those of epochs.
const SPLIT = 2 ** 20

export interface Split {
  /** Numbers of pairs, ascending. */
  readonly training: Uint32Array
  readonly validation: Uint32Array
}

/**
 * Splits pairs so that all pairs of a prompt are on the same side: a prompt is for validation where the hash of its number and the
 * seed is below `share` of its range, so that about that share of the prompts is. Throws where a side has too few pairs.
 */
export function splitPairs({ name, groups, pairs }: PairFile, share: number, seed: number): Split {
  const held = (i: number) => randomBits(seed, SPLIT, groups[i]) < share * 2 ** 32
  const all = Array.from({ length: pairs }, (_, i) => i)
  const validation = Uint32Array.from(all.filter(held))
  const training = Uint32Array.from(all.filter((i) => !held(i)))
  if (training.length < 2) {
    throw new Error(
      `${name}: training needs at least 2 pairs, got ${training.length} of ${pairs}; use a smaller --validation`,
    )
  }
  if (share > 0 && validation.length === 0) {
    throw new Error(
      `${name}: none of the ${pairs} pairs is for validation; use a larger --validation, another --seed, or --validation 0`,
    )
  }
  return { training, validation }
}

/** Pairs of the largest batch: `batch`, or fewer where there are not as many. */
export function largestBatch({ training, validation }: Split, batch: number): number {
  return Math.min(batch, Math.max(training.length, validation.length))
}

/** The steps of a training on pairs: a single pair left over is not used, as batch norm has no variance of one row. */
export function planPairs({ training }: Split, batch: number, epochs: number): Plan {
  return planSteps(training.length, batch, epochs, { smallest: 2 })
}

export interface Batch {
  readonly use: 'training' | 'validation'
  readonly rows: Uint32Array
}

/** All batches from a step on: the training steps of an epoch in its random order, then its validation in the order of the file. */
export function* listBatches(
  { training, validation }: Split,
  plan: Plan,
  seed: number,
  from: number,
): Generator<Batch> {
  for (const { step, rows } of orderRows(training, plan, { seed, from })) {
    yield { use: 'training', rows }
    if ((step + 1) % plan.stepsPerEpoch !== 0) continue
    for (let at = 0; at < validation.length; at += plan.batch) {
      yield { use: 'validation', rows: validation.subarray(at, at + plan.batch) }
    }
  }
}
