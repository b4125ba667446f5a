// What a training on pairs reports: a line for each epoch, and the speed it was made at.
import { printable } from '../files/json.ts'
import type { TrainingResult, TrainProgress } from '../train/recipes.ts'
import { optional, table } from './draw.ts'

/** A line for each epoch, and one for the folder `out`. */
export function trainingReport(result: TrainingResult, out: string): string {
  const head = ['epoch', 'loss', 'accuracy', 'validation loss', 'validation accuracy']
  const lines = result.epochs.map((epoch) => [
    String(epoch.epoch),
    optional(epoch.loss),
    optional(epoch.accuracy),
    optional(epoch.validation_loss),
    optional(epoch.validation_accuracy),
  ])
  const { training, validation, steps, parameters } = result
  const about = `${parameters} parameters, ${steps} steps on ${training} pairs, ${validation} for validation`
  return `${table([head, ...lines], [0, 1, 2, 3, 4])}\n${printable(out)}: ${about}\n`
}

/** Progress and when it was made, in milliseconds. */
export interface TimedProgress extends TrainProgress {
  readonly at: number
}

/** Pairs a second between two points; null where no step was made. */
export function pairRate(first: TimedProgress | undefined, last: TimedProgress | undefined): number | null {
  if (!first || !last || last.pairs === first.pairs) return null
  return (last.pairs - first.pairs) / ((last.at - first.at) / 1000)
}
