// Text for people: tables, numbers, durations, and small drawings of distributions.
import { printable } from '../files/json.ts'
import { cdf, rearrange } from '../reward/distribution.ts'

const BLOCKS = '▁▂▃▄▅▆▇█'

/** The range that drawings share, so that they can be compared by eye. */
export interface Scale {
  readonly low: number
  readonly high: number
  /** Characters. */
  readonly width: number
}

/** A scale that holds all quantile values [N][K]. */
export function commonScale(quantiles: readonly ArrayLike<number>[], width: number): Scale {
  let low = Infinity
  let high = -Infinity
  for (const values of quantiles) {
    for (let k = 0; k < values.length; k++) {
      low = Math.min(low, values[k])
      high = Math.max(high, values[k])
    }
  }
  const margin = (high - low) * 0.05 || Math.max(Math.abs(high), 1) * 0.05
  return { low: low - margin, high: high + margin, width }
}

/**
 * Draws the density of a distribution: one block per cell of the scale, as high as the cell is likely, the likeliest full.
 * Crossing quantiles are sorted for the drawing only.
 */
export function sketch(quantiles: ArrayLike<number>, levels: ArrayLike<number>, { low, high, width }: Scale): string {
  const sorted = rearrange(quantiles)
  const edges = Array.from({ length: width + 1 }, (_, i) => cdf(sorted, levels, low + ((high - low) * i) / width))
  const masses = edges.slice(1).map((upper, i) => upper - edges[i])
  const top = Math.max(...masses, Number.MIN_VALUE)
  return masses
    .map((mass) => (mass <= 0 ? ' ' : BLOCKS[Math.min(7, Math.floor((mass / top) * BLOCKS.length))]))
    .join('')
}

/** The ends of a scale as a heading over the drawings. */
export function axis({ low, high, width }: Scale): string {
  const left = figure(low)
  return `${left}${figure(high).padStart(width - left.length)}`
}

/** The value at the level nearest to `level`, of quantiles sorted as for the drawing. */
export function nearest(quantiles: ArrayLike<number>, levels: readonly number[], level: number): number {
  let best = 0
  for (let k = 1; k < levels.length; k++) {
    if (Math.abs(levels[k] - level) < Math.abs(levels[best] - level)) best = k
  }
  return rearrange(quantiles)[best]
}

/** A number in at most four significant figures. */
export function figure(value: number): string {
  if (value === 0) return '0'
  const size = Math.abs(value)
  return size >= 1e5 || size < 1e-3
    ? value.toExponential(2)
    : value
        .toPrecision(4)
        .replace(/(\.\d*?)0+$/, '$1')
        .replace(/\.$/, '')
}

/** A number as `figure` gives it, or nothing where there is none. */
export function optional(value: number | null): string {
  return value === null ? '' : figure(value)
}

/** A number between 0 and 1 with four digits. */
export function four(value: number): string {
  return value.toFixed(4)
}

/** A level as people say it: 5 %. */
export function percent(level: number): string {
  return `${Number((level * 100).toPrecision(3))} %`
}

/** A number with its noun: 1 row, 2 rows. */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

/** Seconds as people say them: 0.4 s, 42 s, 3 min 5 s, 2 h 10 min. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** The first `most` lines as they are, and one that counts the others: `3 more WHAT`. */
export function cutList(lines: readonly string[], most: number, what: string): string[] {
  if (lines.length <= most) return [...lines]
  return [...lines.slice(0, most), `${lines.length - most} more ${what}`]
}

/** One line, cut to `width` characters. */
export function snippet(text: string, width: number): string {
  const line = Array.from(text.replace(/[\s\p{Cc}]+/gu, ' ').trim())
  return line.length <= width
    ? line.join('')
    : `${line
        .slice(0, width - 1)
        .join('')
        .trimEnd()}…`
}

/** Aligns columns: those named in `right` to the right, two spaces between. No spaces at line ends; every row is one line. */
export function table(cells: readonly (readonly string[])[], right: readonly number[]): string {
  const rows = cells.map((row) => row.map(printable))
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, Array.from(cell).length)
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => {
        const space = ' '.repeat(widths[i] - Array.from(cell).length)
        return right.includes(i) ? space + cell : cell + space
      })
      .join('  ')
      .trimEnd()
  return rows.map((row) => `${line(row)}\n`).join('')
}
