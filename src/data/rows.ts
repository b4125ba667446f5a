// Rows of datasets as they go into files: ratings drawn and merged text by text, preferences one by one; all that is left out is
// counted with its reason.
import { readRecords } from '../files/records.ts'
import { type Source, watchReads } from '../files/source.ts'
import type { AttributeSet, Dataset, RankedSet, RatedRow } from './dataset.ts'
import { drawText, repeats, threshold } from './draw.ts'
import { FormError, Unusable } from './fields.ts'

/** A file of a dataset; it is opened once or twice. */
export interface DataFile {
  /** Its path in the repository or on the disk. */
  readonly path: string
  readonly size: number
  open(): Promise<Source>
}

export interface DataInput<D extends Dataset = Dataset> {
  readonly dataset: D
  readonly files: readonly DataFile[]
}

export interface RowOptions {
  /** Rows at most: of each attribute, or of each set of preferences; Infinity for all. */
  readonly limit: number
  readonly seed: number
  /** How far the reading of all files, which may take place twice, has come. */
  readonly onProgress?: (bytes: number, totalBytes: number, records: number) => void
}

/** What has become of the records of a dataset. */
export interface SetReport {
  records: number
  /** Rows that can be used. */
  rows: number
  /** Rows that are not used, by reason. */
  readonly skipped: Record<string, number>
}

export interface RowReport {
  readonly sets: Record<string, SetReport>
  /** Texts that were written. */
  written: number
  /** Rows that the limit leaves out. */
  notDrawn: number
  /** Rows whose text another row has; their ratings stand beside each other in one row. */
  merged: number
  /** Ratings that were written, of each attribute. */
  readonly labels: Record<string, number>
}

export type OutputRow = Record<string, unknown>

/** An empty report, to be filled while rows are read. */
export function startReport(): RowReport {
  return { sets: {}, written: 0, notDrawn: 0, merged: 0, labels: {} }
}

/**
 * Yields rows `{prompt, response | messages, ATTRIBUTE: number | null | numbers, id}` in the order of the files. Of each attribute the
 * `limit` texts with the smallest hashes are drawn from all sets together; a text that occurs several times is one row with a list
 * of ratings. Files are read twice: once for the hashes, so that memory holds numbers and no texts. Throws, naming the record, on
 * files that do not have their dataset's form.
 */
export async function* attributeRows(
  inputs: readonly DataInput<AttributeSet>[],
  options: RowOptions,
  report: RowReport,
): AsyncGenerator<OutputRow> {
  const passes = startPasses(inputs, 2, options)
  const draws: number[] = []
  const drawsOf = new Map<string, number[]>()
  for await (const { row } of passes.read(rated, startReport())) {
    const { draw } = drawText(ratedKey(row.text), options.seed)
    draws.push(draw)
    for (const [name, label] of Object.entries(row.labels)) {
      const list = drawsOf.get(name) ?? []
      drawsOf.set(name, list)
      if (label !== null) list.push(draw)
    }
  }
  const limits = new Map([...drawsOf].map(([name, list]) => [name, threshold(list, options.limit)]))
  const waiting = repeats(draws)
  const gathered = new Map<string, OutputRow>()
  const finish = (row: OutputRow) => {
    for (const [name, label] of Object.entries(row)) {
      if (limits.has(name) && label !== null) {
        report.labels[name] = (report.labels[name] ?? 0) + (Array.isArray(label) ? label.length : 1)
      }
    }
    report.written++
    return row
  }
  for await (const { row } of passes.read(rated, report)) {
    const { id, draw } = drawText(ratedKey(row.text), options.seed)
    const drawn = ([name, label]: [string, RatedRow['labels'][string]]) => [
      name,
      draw <= (limits.get(name) as number) ? label : null,
    ]
    const labels = Object.fromEntries(Object.entries(row.labels).map(drawn)) as RatedRow['labels']
    const left = waiting.get(draw)
    if (left !== undefined) waiting.set(draw, left - 1)
    const earlier = gathered.get(id)
    if (Object.values(labels).every((label) => label === null)) report.notDrawn++
    else if (earlier) {
      report.merged++
      for (const [name, label] of Object.entries(labels)) earlier[name] = joined(earlier[name], label)
    } else if (left === undefined) yield finish({ ...row.text, ...labels, id })
    else gathered.set(id, { ...row.text, ...labels, id })
    // The last of several rows with one text: now it is whole.
    const whole = left === 1 ? gathered.get(id) : undefined
    if (whole) {
      gathered.delete(id)
      yield finish(whole)
    }
  }
  // Different texts with one draw, which is next to impossible, wait until here.
  for (const row of gathered.values()) yield finish(row)
}

/** Labels beside each other, in an order that does not depend on that of the rows. */
function joined(a: unknown, b: number | number[] | null): number | number[] | null {
  const both = [a, b].flat().filter((label): label is number => typeof label === 'number')
  both.sort((x, y) => x - y)
  return both.length > 1 ? both : (both[0] ?? null)
}

function rated(record: Record<string, unknown>, set: AttributeSet): (RatedRow | Unusable)[] {
  return set.read(record, set.attributes)
}

/** A pair of texts is the conversation that it stands for. */
function ratedKey(text: RatedRow['text']): string {
  if ('messages' in text) return JSON.stringify(text.messages.map(({ role, content }) => [role, content]))
  return JSON.stringify([
    ['user', text.prompt],
    ['assistant', text.response],
  ])
}

/**
 * Yields rows `{prompt, chosen, rejected, subset, id}` (texts, or lists of them after one prompt), or without prompt where chosen and
 * rejected are conversations. With a limit the pairs with the smallest hashes are drawn of each set, and files are read twice.
 */
export async function* rankedRows(
  inputs: readonly DataInput<RankedSet>[],
  options: RowOptions,
  report: RowReport,
): AsyncGenerator<OutputRow> {
  const { limit, seed } = options
  const passes = startPasses(inputs, limit === Infinity ? 1 : 2, options)
  const read = (record: Record<string, unknown>, set: RankedSet, path: string) => set.read(record, path)
  const drawsOf = new Map<string, number[]>()
  if (limit !== Infinity) {
    for await (const { row, set } of passes.read(read, startReport())) {
      const list = drawsOf.get(set.name) ?? []
      drawsOf.set(set.name, list)
      list.push(drawText(JSON.stringify(row.text), seed).draw)
    }
  }
  const limits = new Map([...drawsOf].map(([name, list]) => [name, threshold(list, limit)]))
  for await (const { row, set } of passes.read(read, report)) {
    const { id, draw } = drawText(JSON.stringify(row.text), seed)
    if (draw > (limits.get(set.name) ?? Infinity)) {
      report.notDrawn++
      continue
    }
    report.written++
    yield { ...row.text, subset: row.subset, id: row.id ?? id, ...row.more }
  }
}

/** Rows of sets of one kind: `attributeRows` or `rankedRows`. */
export function datasetRows(
  inputs: readonly DataInput[],
  options: RowOptions,
  report: RowReport,
): AsyncGenerator<OutputRow> {
  return inputs[0].dataset.kind === 'attributes'
    ? attributeRows(inputs as readonly DataInput<AttributeSet>[], options, report)
    : rankedRows(inputs as readonly DataInput<RankedSet>[], options, report)
}

/** Reads all files of all sets in order, as often as it is asked to, and says how far it is of `passes` times. */
function startPasses<D extends Dataset>(inputs: readonly DataInput<D>[], passes: number, { onProgress }: RowOptions) {
  const total = passes * inputs.flatMap(({ files }) => files).reduce((bytes, { size }) => bytes + size, 0)
  let bytes = 0
  let records = 0
  return {
    async *read<R>(
      rows: (record: Record<string, unknown>, set: D, path: string) => (R | Unusable)[],
      report: RowReport,
    ): AsyncGenerator<{ row: R; set: D }> {
      for (const { dataset, files } of inputs) {
        const counts: SetReport = { records: 0, rows: 0, skipped: {} }
        report.sets[dataset.name] = counts
        for (const file of files) {
          const source = await file.open()
          try {
            const counted = watchReads(source, (length) => {
              bytes += length
            })
            for await (const { where, value } of readRecords(counted, { columns: dataset.columns })) {
              counts.records++
              records++
              onProgress?.(Math.min(bytes, total), total, records)
              for (const row of usable(() => rows(value, dataset, file.path), where, dataset)) {
                if (row instanceof Unusable) counts.skipped[row.reason] = (counts.skipped[row.reason] ?? 0) + 1
                else {
                  counts.rows++
                  yield { row, set: dataset }
                }
              }
            }
          } finally {
            await source.close()
          }
        }
      }
    },
  }
}

function usable<R>(read: () => (R | Unusable)[], where: string, { name, hub }: Dataset): (R | Unusable)[] {
  try {
    return read()
  } catch (error) {
    if (error instanceof Unusable) return [error]
    if (!(error instanceof FormError)) throw error
    throw new Error(
      `${where}: ${error.message}; it is not of dataset ${name} (${hub}), or the form of that has changed`,
    )
  }
}
