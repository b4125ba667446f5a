// What `pinball debias` and `pinball calibrate` report of the attributes of heads, and `pinball assemble` of their files.
import { printable, show } from '../files/json.ts'
import type { Checkpoint } from '../reward/checkpoint.ts'
import type { CalibratedAttribute, Calibration } from '../reward/conformal.ts'
import type { DebiasedHeads } from '../reward/debias.ts'
import type { RatingCounts, Unit } from '../reward/unit.ts'
import { figure, optional, table } from './draw.ts'

/** What debiasing did to an attribute; correlations with the unwanted one, null where they are not defined. */
export interface DebiasedAttribute {
  readonly attribute: string
  readonly penalty: number
  readonly correlation: number | null
  readonly debiased_correlation: number | null
}

/** What debiasing did to each attribute. */
export function debiasedAttributes({ heads, penalties, before, after, unwanted }: DebiasedHeads): DebiasedAttribute[] {
  const finite = (value: number) => (Number.isFinite(value) ? value : null)
  return heads.attributes.map((attribute, j) => ({
    attribute,
    penalty: penalties[j],
    correlation: finite(before[j]),
    debiased_correlation: j === unwanted ? null : finite(after[j]),
  }))
}

/** A line for each attribute, and one for the file `out`. */
export function debiasReport(found: DebiasedHeads, out: string): string {
  const lines = debiasedAttributes(found).map((a) => [
    a.attribute,
    figure(a.penalty),
    optional(a.correlation),
    optional(a.debiased_correlation),
  ])
  const head = ['attribute', 'penalty', `correlation with ${found.attribute}`, 'debiased']
  return `${table([head, ...lines], [1, 2, 3])}\n${printable(out)}: penalties from ${found.rows} responses\n`
}

/** What a calibration says of an attribute, with the bounds of its promise. */
export interface CalibrationLine extends CalibratedAttribute {
  /** Coverage is at most the level plus this. */
  readonly coverage_excess: number
  /** The largest offset by size. */
  readonly largest_offset: number
}

/** What a calibration comes to for each attribute. */
export function calibrationLines({ offsets, attributes }: Calibration): CalibrationLine[] {
  const levels = offsets.length / attributes.length
  return attributes.map((entry, j) => ({
    ...entry,
    coverage_excess: 1 / (entry.items + 1),
    largest_offset: offsets
      .subarray(j * levels, (j + 1) * levels)
      .reduce((most, offset) => Math.max(most, Math.abs(offset)), 0),
  }))
}

/** A line for each attribute, and one for the file `out`. */
export function calibrationReport(found: Calibration, out: string): string {
  const lines = calibrationLines(found).map((a) => [
    a.name,
    String(a.items),
    String(a.ratings),
    figure(a.coverage_excess),
    figure(a.largest_offset),
  ])
  const head = ['attribute', 'items', 'ratings', 'coverage at most t +', 'largest offset']
  const about = `${printable(out)}: offsets of ${found.offsets.length} quantiles`
  return `${table([head, ...lines], [1, 2, 3, 4])}\n${about}\n`
}

/** Names the attributes with levels that too few items cannot reach, and how many; null where there are none. */
export function unreachableNote({ attributes }: Calibration): string | null {
  const far = attributes.filter(({ unreachable }) => unreachable > 0)
  if (far.length === 0) return null
  const names = far.map(({ name, unreachable }) => `${name} (${unreachable})`).join(', ')
  return `too few items for the highest levels of ${names}`
}

// Names in a note; --json has all.
const SHOWN = 6

/** Names some files of the backbone's directory that are not taken over. */
export function leftOutNote(files: readonly string[], backbone: string): string {
  const more = files.length > SHOWN ? ` and ${files.length - SHOWN} more` : ''
  const names = files.slice(0, SHOWN).map(show).join(', ')
  return `what is no part of the model stays in ${printable(backbone)} alone: ${names}${more}`
}

type Known = ArrayLike<bigint> & Iterable<bigint>

/** A line where rows are measured that heads were fitted to, or that a calibration was found on, or null. */
function knownNote(known: BigInt64Array | null | undefined, keys: Known, doing: string, before: string): string | null {
  if (!known) return null
  const set = new Set(known)
  let count = 0
  for (const key of keys) if (set.has(key)) count++
  if (count === 0) return null
  const which = count === keys.length ? `all ${count} rows` : `${count} of ${keys.length} rows`
  return `${which} to ${doing} are rows that ${before}; take rows that it has not seen`
}

/** A line where pairs are measured that a gate or a score head was trained on, or null. */
export function pairsNote(fitted: Checkpoint['fitted'], keys: readonly bigint[] = []): string | null {
  const known = new Set(fitted?.pairs)
  const count = keys.filter((key) => known.has(key)).length
  if (count === 0) return null
  const which = count === keys.length ? `all ${count} pairs` : `${count} of ${keys.length} pairs`
  return `${which} to measure on are pairs that the model was trained on; take pairs that it has not seen`
}

function unitNote(before: Unit | null | undefined, unit: Unit, what: string, now: string): string | null {
  return !before || before === unit ? null : `${what} by ${before}, ${now} is by ${unit}; give both the same --unit`
}

/** Lines about a calibration on rows that the heads were fitted to, or by another unit than theirs. */
export function calibrationNotes({ fitted }: Checkpoint, { rows = new BigInt64Array(), unit }: Calibration): string[] {
  const notes = [
    knownNote(fitted?.rows, rows, 'calibrate on', 'the heads were fitted to'),
    unitNote(fitted?.unit, unit ?? 'item', 'the heads were fitted', 'this calibration'),
  ]
  return notes.filter((line) => line !== null)
}

/** Lines about an evaluation on rows that the model has seen, by another unit than the model's, or of items with unequal numbers of ratings. */
export function evaluationNotes(
  { fitted, calibration }: Pick<Checkpoint, 'fitted' | 'calibration'>,
  { keys = [], calibrated }: { readonly keys?: readonly bigint[]; readonly calibrated: boolean },
  { unit, unequal }: { readonly unit: Unit; readonly unequal: Readonly<Record<string, RatingCounts>> },
): string[] {
  const own = calibrated ? calibration : null
  const counts = Object.entries(unequal).map(([name, { least, most }]) => `${name} (${least} to ${most})`)
  const notes = [
    knownNote(fitted?.rows, keys, 'measure on', 'the heads were fitted to'),
    knownNote(own?.rows, keys, 'measure on', 'the calibration was found on'),
    own
      ? unitNote(own.unit ?? 'item', unit, 'the model is calibrated', 'this evaluation')
      : unitNote(fitted?.unit, unit, 'the heads were fitted', 'this evaluation'),
    counts.length === 0
      ? null
      : `items have different numbers of ratings of ${counts.join(', ')}, so that it matters what counts (--unit)`,
  ]
  return notes.filter((line) => line !== null)
}
