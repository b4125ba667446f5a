// What a training on pairs reports: a line for each epoch, the speed it was made at, and where it goes on.
import { printable } from '../files/json.ts'
import type { TrainingResult, TrainProgress } from '../train/recipes.ts'
import { counted, optional, table } from './draw.ts'

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
  const about = `${parameters} parameters, ${counted(steps, 'step')} on ${counted(training, 'pair')}, ${validation} for validation`
  return `${table([head, ...lines], [0, 1, 2, 3, 4])}\n${printable(out)}: ${about}\n`
}

/** Progress and when it was made, in milliseconds. */
export type Timed<Progress> = Progress & { readonly at: number }

/** What is counted, a second, between two points; null where nothing was made. */
export function rate<Progress>(
  first: Timed<Progress> | undefined,
  last: Timed<Progress> | undefined,
  count: (progress: Progress) => number,
): number | null {
  if (!first || !last || count(last) <= count(first)) return null
  return (count(last) - count(first)) / ((last.at - first.at) / 1000)
}

/** Pairs a second between two points; null where no step was made. */
export function pairRate(first: Timed<TrainProgress> | undefined, last: typeof first): number | null {
  return rate(first, last, ({ pairs }) => pairs)
}

/** Says that there is nothing to do in the folder `out`. */
export function finishedText(out: string): string {
  return `${printable(out)} holds this training, finished; --restart begins it anew`
}

/** Says what an interrupt left in the folder `out`: the step that was saved, or nothing. */
export function interruptedText(saved: number | undefined, out: string): string {
  const kept = saved === undefined ? 'no step was made' : `step ${saved} is saved in ${printable(out)}`
  return `interrupted; ${kept}; the same command goes on from there`
}
