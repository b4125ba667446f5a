// What `pinball features` reports: what was left out, how many rows the file has, and the speed they were made at.
import { printable, show } from '../files/json.ts'
import type { ComputedRows, MadeFeatures } from '../reward/feature_files/make.ts'
import { manifestName } from '../reward/feature_files/manifest.ts'
import type { FeatureRows, SkippedRow } from '../reward/feature_files/rows.ts'
import { cutList, duration } from './draw.ts'

const SKIPPED_SHOWN = 10

/** A line about the fields that were passed over, and one for each row that was left out, up to ten. */
export function leftOutNotes({ ignored, kind }: FeatureRows, skipped: readonly SkippedRow[]): string[] {
  const what = kind === 'pairs' ? 'fields that pairs do not have' : 'fields that --labels does not name'
  const rows = skipped.map(({ where, reason }) => `${where} is left out: ${reason}`)
  return [
    ...(ignored.length > 0 ? [`${what} are left out: ${ignored.map(show).join(', ')}`] : []),
    ...cutList(rows, SKIPPED_SHOWN, 'rows are left out'),
  ]
}

interface Speed {
  readonly rows_per_second: number | null
  readonly tokens_per_second: number | null
}

/** Rows and tokens a second; null where nothing was computed. */
function speedOf(computed: ComputedRows | null): Speed {
  const rate = (count: number) => (computed && count > 0 ? count / (computed.ms / 1000) : null)
  return { rows_per_second: rate(computed?.rows ?? 0), tokens_per_second: rate(computed?.tokens ?? 0) }
}

/** The document of `features --json`; `ms` is what the whole call took. */
export function featuresDocument({ manifest, computed }: MadeFeatures, file: string, ms: number): unknown {
  const { columns, labels, tokens, shard, shards } = manifest
  const skipped = computed === null ? true : manifest.skipped
  const about = { file, manifest: manifestName(file), rows: manifest.rows.length, labels, columns, tokens, skipped, ms }
  return { ...about, ...speedOf(computed), shard, shards }
}

/** One line for people; `names` is the number of fields with labels. */
export function featuresReport({ manifest, computed }: MadeFeatures, file: string, names: number, ms: number): string {
  const { columns, labels, skipped, kind } = manifest
  const rows = manifest.rows.length
  const what = `features of ${rows} ${kind === 'pairs' ? 'pairs' : 'rows'}, ${columns} columns`
  const ratings = labels > rows ? `, ${labels} ratings` : ''
  const left = skipped > 0 ? `, ${skipped} rows left out` : ''
  return `${printable(file)}: ${what}, ${names} labels${ratings}${left} (${took(computed, ms)})\n`
}

function took(computed: ComputedRows | null, ms: number): string {
  if (computed === null) return 'there already'
  const rate = speedOf(computed).tokens_per_second
  return `${duration(ms / 1000)}${rate === null ? '' : `, ${Number(rate.toPrecision(3))} tokens a second`}`
}
