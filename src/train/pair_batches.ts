// Batches of pairs: the split by prompt, the order of an epoch, and reading one batch ahead of the one that is computed.
import type { PairFile } from '../reward/pair_file.ts'
import { randomBits, shuffled } from './random.ts'
import { locateStep, type Plan } from './schedule.ts'

// Streams of random numbers; those from EPOCHS on belong to epochs. Initial weights draw from the first ones.
const SPLIT = 2 ** 20
const EPOCHS = 2 ** 21

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
  let order: Uint32Array = new Uint32Array(0)
  for (let step = from; step < plan.steps; step++) {
    const { epoch, begin, end } = locateStep(plan, step)
    if (begin === 0 || step === from) order = shuffled(training, seed, EPOCHS + epoch)
    yield { use: 'training', rows: order.subarray(begin, end) }
    if ((step + 1) % plan.stepsPerEpoch !== 0) continue
    for (let at = 0; at < validation.length; at += plan.batch) {
      yield { use: 'validation', rows: validation.subarray(at, at + plan.batch) }
    }
  }
}

/** Reads batches one ahead. */
export interface ReadAhead {
  /** The next batch with its states, which are overwritten after `release`. */
  next(): Promise<Batch & { readonly states: Float32Array }>
  /** Says that the states are no longer needed: the batch after them begins to be read. */
  release(): void
  /** Waits for what is being read. */
  end(): Promise<void>
}

/** Starts reading; `read` fills the beginning of `buffer` with the states of the rows. One batch at a time is in the buffer. */
export function readAhead(
  batches: Iterator<Batch>,
  read: (rows: Uint32Array, into: Float32Array) => Promise<Float32Array>,
  buffer: Float32Array,
): ReadAhead {
  const start = () => {
    const { value, done } = batches.next()
    if (done) return null
    const reading = read(value.rows, buffer).then((states) => ({ ...value, states }))
    // The error is for the one who asks for the batch, which may be later than it occurs.
    reading.catch(() => {})
    return reading
  }
  let reading = start()
  return {
    next() {
      if (reading === null) throw new Error('pairs: there is no batch left')
      return reading
    },
    release() {
      reading = start()
    },
    async end() {
      await reading?.catch(() => {})
    },
  }
}
