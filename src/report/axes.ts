// Axes of drawings: where a value is, and which values are named.

export interface AxisSpec {
  readonly label?: string
  /** Ends of the axis; those of a logarithmic one are above 0. */
  readonly low: number
  readonly high: number
  readonly logarithmic?: boolean
  /** Values that are named; by default round ones. */
  readonly ticks?: readonly number[]
  readonly format?: (value: number) => string
}

export interface Axis {
  /** Position of a value in pixels. */
  readonly at: (value: number) => number
  readonly ticks: readonly { readonly at: number; readonly text: string }[]
}

/** Lays an axis out over pixels `from` to `to`. */
export function layAxis(
  { low, high, logarithmic = false, ticks, format = plain }: AxisSpec,
  from: number,
  to: number,
): Axis {
  const share = logarithmic
    ? (value: number) => Math.log(value / low) / Math.log(high / low)
    : (value: number) => (value - low) / (high - low)
  const at = (value: number): number => from + (to - from) * share(value)
  const margin = 1e-6 * (high - low)
  const inside = (ticks ?? roundTicks(low, high)).filter((tick) =>
    logarithmic ? tick >= low * 0.999 && tick <= high * 1.001 : tick >= low - margin && tick <= high + margin,
  )
  return { at, ticks: inside.map((tick) => ({ at: at(tick), text: format(tick) })) }
}

/** About `count` round values between two: multiples of 1, 2 or 5 times a power of ten. */
export function roundTicks(low: number, high: number, count = 5): number[] {
  const raw = (high - low) / count
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = power * ([1, 2, 5].find((factor) => factor * power >= raw) ?? 10)
  const first = Math.ceil(low / step - 1e-9)
  const last = Math.floor(high / step + 1e-9)
  // Of whole multiples, so that 0.3 is not 0.30000000000000004.
  const digits = Math.max(0, -Math.floor(Math.log10(step)))
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(digits)))
}

/** The range of values with a margin, for an axis that shows all of them. */
export function rangeOf(values: readonly number[], margin = 0.06): { readonly low: number; readonly high: number } {
  let [low, high] = [Infinity, -Infinity]
  for (const value of values) {
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  const space = (high - low) * margin || Math.max(Math.abs(high), 1) * margin
  return { low: low - space, high: high + space }
}

function plain(value: number): string {
  // The sign of mathematics, as long as a digit.
  return String(value).replace('-', '−')
}
