// What `pinball train` says at its end: the rows of each part, the table of the attributes, the pairs.
import type { OwnModelReport } from '../evaluate/own_model.ts'
import { printable } from '../files/json.ts'
import { four, table } from './draw.ts'
import { accuracyTable, calibrationTable } from './evaluation.ts'

/** For people; `out` is the folder. */
export function ownModelText(report: OwnModelReport, out: string): string {
  const { rows, calibrated, plain, pairs, unit, weights } = report
  const counts = table([['part', 'rows'], ...Object.entries(rows).map(([name, count]) => [name, String(count)])], [1])
  const before = `before calibration ${four(plain.mean.coverage_error)}, after ${four(calibrated.mean.coverage_error)}`
  const accuracy = pairs === null ? '' : `\n${accuracyTable(pairs.subsets, pairs)}`
  const mixed =
    weights === 'gate' ? 'a gate' : `fixed weights (${typeof weights === 'string' ? weights : JSON.stringify(weights)})`
  return (
    `${counts}\n\n${calibrationTable(calibrated)}\nmean coverage error by ${unit}: ${before}\n${accuracy}` +
    `${printable(out)}/model: a reward model with ${mixed}; "pinball score --model" takes it\n`
  )
}
