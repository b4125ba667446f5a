// What a merge of an adapter reports: a document, lines for people, and notes about what was not copied.
import { printable } from '../files/json.ts'
import type { MergeReport } from '../llama/merge.ts'

/** The document of a merge into the folder `out`, which took `ms` milliseconds. */
export function mergeDocument({ tensors, largest, outputs, files, leftOut }: MergeReport, out: string, ms: number) {
  return {
    out,
    adapted: tensors.length,
    largest_loss: largest.loss,
    largest_loss_tensor: largest.name,
    largest_output_difference: outputs,
    tensors: tensors.map(({ lossShare, ...tensor }) => ({ ...tensor, loss_share: lossShare })),
    files,
    left_out: leftOut,
    ms,
  }
}

/** Two to four lines: what was written into `out`, and what rounding took of it. */
export function mergeText({ tensors, largest, outputs, files }: MergeReport, out: string): string {
  const worst = tensors.reduce((a, b) => (b.lossShare > a.lossShare ? b : a))
  const share = `${Number((100 * worst.lossShare).toPrecision(3))} %`
  const about = `${printable(out)}: ${tensors.length} maps merged, ${files.length} files, read back and compared\n`
  const compared = outputs === null ? '' : `largest difference of outputs: ${outputs.toPrecision(3)}\n`
  if (largest.loss === 0) return `${about}nothing is lost by rounding\n${compared}`
  const loss = `largest loss by rounding: ${largest.loss.toPrecision(3)} (${printable(largest.name)})\n`
  return `${about}${loss}${compared}largest share of a change lost: ${share} (${printable(worst.name)}, root mean square)\n`
}

/** A line for each folder of the base, none of which is copied, and one for the files that were left out. */
export function mergeNotes({ leftOut }: MergeReport, folders: readonly string[]): string[] {
  const notes = folders.map((name) => `the folder ${printable(name)} of the base is not copied`)
  if (leftOut.length > 0) notes.push(`not copied: ${printable(leftOut.join(', '))}`)
  return notes
}
