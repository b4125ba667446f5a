// What `pinball ridge` prints: how far it has come, and at its end the penalty of each attribute.
import { printable } from '../files/json.ts'
import type { RidgeFit, RidgeProgress } from '../train/multi_attribute.ts'
import { figure, table } from './draw.ts'

/** What is being done for a group of attributes, and how much of it. */
export function ridgeProgress({ attributes, doing, done, total }: RidgeProgress): string {
  const more = attributes.length > 1 ? ` and ${attributes.length - 1} more` : ''
  const what = doing === 'solving' ? 'penalties solved' : doing === 'sums' ? 'rows summed' : 'rows predicted'
  return `${printable(attributes[0])}${more}: ${done} of ${total} ${what}`
}

/** A line for each attribute with the error at its penalty, and one for the file `out`. */
export function ridgeReport({ fits, columns }: RidgeFit, rows: number, out: string): string {
  const head = ['attribute', 'alpha', 'training', 'validation', 'mean squared error']
  const lines = fits.map(({ attribute, alpha, training, validation, path }) => {
    const { mse } = path.find((step) => step.alpha === alpha)!
    return [attribute, figure(alpha), String(training), String(validation), figure(mse)]
  })
  const about = `${fits.length} heads over ${columns} columns from ${rows} rows`
  return `${table([head, ...lines], [1, 2, 3, 4])}\n${printable(out)}: ${about}\n`
}
