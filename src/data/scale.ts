// Scales of ratings and how they are brought to [0, 1].
import { Unusable } from './fields.ts'

/** A scale of raw ratings. */
export type Scale =
  /** Whole or half steps from `low` to `high` in `high - low + 1` levels. */
  | { readonly kind: 'levels'; readonly low: number; readonly high: number }
  /** True or false. */
  | { readonly kind: 'boolean' }
  /** Already in [0, 1]. */
  | { readonly kind: 'unit' }

/** n levels from `low` on: 0 to 4 are five levels, 1 to 10 are ten. */
export function levels(low: number, high: number): Scale {
  return { kind: 'levels', low, high }
}

export const BOOLEAN: Scale = { kind: 'boolean' }
export const UNIT: Scale = { kind: 'unit' }

/** Says a scale in words. */
export function describeScale(scale: Scale): string {
  if (scale.kind === 'boolean') return 'false or true'
  return scale.kind === 'unit' ? '0 to 1' : `${scale.low} to ${scale.high}`
}

/** Says in a formula how a raw rating becomes a label. */
export function describeNormalisation(scale: Scale): string {
  if (scale.kind === 'boolean') return 'true is 1, false is 0'
  if (scale.kind === 'unit') return 'as it is'
  const { low, high } = scale
  const shift = 0.5 - low
  return `(raw ${shift < 0 ? '-' : '+'} ${Math.abs(shift)}) / ${high - low + 1}`
}

/**
 * A raw rating as a label: n levels are the middles of n equal parts of [0, 1], (raw - low + 0.5) / n, which is the published
 * (raw + 0.5) / 5 for the scale 0 to 4; true is 1 and false is 0. Ratings may be numbers in texts, as some files have them; null
 * and `N/A` are missing. Throws Unusable on anything that is not on the scale.
 */
export function normalise(raw: unknown, scale: Scale): number | null {
  if (raw === null || raw === undefined || raw === '' || raw === 'N/A') return null
  if (scale.kind === 'boolean') {
    if (typeof raw === 'boolean') return raw ? 1 : 0
    throw new Unusable('a rating that is neither true nor false')
  }
  const value = typeof raw === 'string' && /^\s*-?\d+(\.\d+)?\s*$/.test(raw) ? Number(raw) : raw
  const [low, high] = scale.kind === 'unit' ? [0, 1] : [scale.low, scale.high]
  if (typeof value !== 'number' || !(value >= low && value <= high)) {
    throw new Unusable(`a rating outside of ${describeScale(scale)}`)
  }
  return scale.kind === 'unit' ? value : (value - low + 0.5) / (high - low + 1)
}

/** Labels of one or several raters: a list of ratings gives a list of labels, without the missing ones. */
export function normaliseAll(raw: unknown, scale: Scale): number | number[] | null {
  if (!Array.isArray(raw)) return normalise(raw, scale)
  const found = raw.map((one) => normalise(one, scale)).filter((one) => one !== null)
  return found.length === 0 ? null : found
}
