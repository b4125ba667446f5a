// What `pinball data` shows: the table of datasets, and what has become of the records of those that were read.
import type { Dataset } from '../data/dataset.ts'
import type { RowReport } from '../data/rows.ts'
import { describeNormalisation, describeScale } from '../data/scale.ts'
import { printable } from '../files/json.ts'
import { duration, table } from './draw.ts'

/** An entry of the table as plain data. */
export function datasetDocument(dataset: Dataset): Record<string, unknown> {
  const { read, columns, ...entry } = dataset
  if (dataset.kind !== 'attributes') return { ...entry, columns }
  const attributes = dataset.attributes.map(({ name, column, scale }) => ({
    name,
    column,
    scale: describeScale(scale),
    normalisation: describeNormalisation(scale),
  }))
  return { ...entry, columns, attributes }
}

/** Three parts: the datasets, the attributes of those that are rated, and what is assumed about them. */
export function datasetReport(datasets: readonly Dataset[]): string {
  const sets = datasets.map(({ name, kind, hub, size, licence }) => [
    name,
    kind,
    hub,
    size === null ? '-' : `${size}`,
    licence ?? 'not stated',
  ])
  const attributes = datasets.flatMap((dataset) =>
    dataset.kind === 'attributes'
      ? dataset.attributes.map(({ name, scale }) => [
          name,
          dataset.name,
          describeScale(scale),
          describeNormalisation(scale),
        ])
      : [],
  )
  const assumed = datasets.flatMap((dataset) => dataset.assumed.map((what) => `  ${dataset.name}: ${what}\n`))
  return [
    table([['dataset', 'kind', 'hub', 'rows', 'licence'], ...sets], [3]),
    table([['attribute', 'dataset', 'raw', 'label'], ...attributes], []),
    `Assumed, as it is not published:\n${assumed.join('')}`,
  ].join('\n')
}

/** A line for each dataset with what was skipped and why, one for each attribute, and one for the file `out`. */
export function rowsReport(report: RowReport, out: string, seconds: number): string {
  const { sets, written, notDrawn, merged, labels } = report
  const cells = Object.entries(sets).map(([name, { records, rows, skipped }]) => {
    const reasons = Object.entries(skipped).map(([reason, count]) => `${count} ${reason}`)
    return [name, `${records}`, `${rows}`, reasons.join('; ') || 'none']
  })
  const counts = Object.entries(labels).map(([name, count]) => [name, `${count}`])
  const about = [
    `${printable(out)}: ${written} rows`,
    ...(notDrawn > 0 ? [`${notDrawn} rows not drawn`] : []),
    ...(merged > 0 ? [`${merged} rows joined to others with the same text`] : []),
  ]
  return [
    table([['dataset', 'records', 'rows', 'skipped'], ...cells], [1, 2]),
    ...(counts.length > 0 ? [table([['attribute', 'ratings'], ...counts], [1])] : []),
    `${about.join(', ')} (${duration(seconds)})\n`,
  ].join('\n')
}
