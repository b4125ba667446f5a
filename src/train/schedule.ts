// The steps of a training, where each is in the data, and its learning rate.

/** How a training goes through its rows. */
export interface Plan {
  readonly rows: number
  readonly batch: number
  readonly epochs: number
  readonly stepsPerEpoch: number
  readonly steps: number
}

export interface PlanOptions {
  /** The last batch of an epoch is shorter where rows are left over; fewer rows than this are not used. Default 1. */
  readonly smallest?: number
  /** Ends the training after so many steps, in the middle of an epoch too. */
  readonly maxSteps?: number
}

/** Plans the steps. */
export function planSteps(
  rows: number,
  batch: number,
  epochs: number,
  { smallest = 1, maxSteps = Infinity }: PlanOptions = {},
): Plan {
  const stepsPerEpoch = Math.floor(rows / batch) + (rows % batch >= smallest ? 1 : 0)
  return { rows, batch, epochs, stepsPerEpoch, steps: Math.min(maxSteps, stepsPerEpoch * epochs) }
}

/** Where a step is: its epoch, from 0, and its rows [begin, end) in the order of the epoch. */
export function locateStep({ rows, batch, stepsPerEpoch }: Plan, step: number) {
  const begin = (step % stepsPerEpoch) * batch
  return { epoch: Math.floor(step / stepsPerEpoch), begin, end: Math.min(rows, begin + batch) }
}

/** How the learning rate falls after the warm-up. */
export type Decline = 'constant' | 'linear' | 'cosine'

export interface Schedule {
  /** Peak of the learning rate. */
  readonly lr: number
  readonly schedule: Decline
  /** Steps of warm-up if 1 or more, a share of all steps below 1; the rate of its first step is 0. */
  readonly warmup: number
}

/** Steps of warm-up; a share is rounded up. */
export function warmupSteps(warmup: number, steps: number): number {
  return warmup < 1 ? Math.ceil(warmup * steps) : Math.floor(warmup)
}

/**
 * Learning rate of a step, counted from 0, of `steps`: up from 0 along a line during the warm-up, then the peak, or down from it to
 * nearly 0 along a line or half a cosine. As in transformers; without a warm-up the cosine is CosineAnnealingLR of PyTorch.
 */
export function learningRate({ lr, schedule, warmup }: Schedule, step: number, steps: number): number {
  const warm = warmupSteps(warmup, steps)
  if (step < warm) return (lr * step) / warm
  if (schedule === 'constant') return lr
  const [done, all] = [step - warm, steps - warm]
  return schedule === 'linear' ? lr * ((all - done) / all) : (lr * (1 + Math.cos((Math.PI * done) / all))) / 2
}
