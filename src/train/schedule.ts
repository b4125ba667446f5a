// The steps of a training and their learning rates.

/** How a training goes through its rows. */
export interface Plan {
  readonly rows: number
  readonly batch: number
  readonly epochs: number
  readonly stepsPerEpoch: number
  readonly steps: number
}

/** The last batch of an epoch is shorter where rows are left over; a single row left over is not used (it has no variance). */
export function planSteps(rows: number, batch: number, epochs: number): Plan {
  const stepsPerEpoch = Math.floor(rows / batch) + (rows % batch >= 2 ? 1 : 0)
  return { rows, batch, epochs, stepsPerEpoch, steps: stepsPerEpoch * epochs }
}

/** Where a step is: its epoch, from 0, and its rows [begin, end) in the order of the epoch. */
export function locateStep({ rows, batch, stepsPerEpoch }: Plan, step: number) {
  const begin = (step % stepsPerEpoch) * batch
  return { epoch: Math.floor(step / stepsPerEpoch), begin, end: Math.min(rows, begin + batch) }
}

/** Learning rate of a step, counted from 0: from `peak` down to nearly 0 along half a cosine (CosineAnnealingLR of PyTorch). */
export function cosine(peak: number, step: number, steps: number): number {
  return (peak * (1 + Math.cos((Math.PI * step) / steps))) / 2
}
