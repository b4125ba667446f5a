// Fields of a config.json: whole numbers, numbers and flags, checked.
import { show } from '../files/json.ts'

// Far above every published model; it keeps a hostile config from asking for absurd memory or overflowing 32-bit indices.
const SIZE_LIMIT = 2 ** 24

/** Reads a required count; a null counts as missing, as in transformers. */
export function readSize(json: Record<string, unknown>, key: string, where: string, limit = SIZE_LIMIT): number {
  const value = json[key]
  if (value == null) throw new Error(`${where}: ${key} is missing`)
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw new Error(`${where}: ${key} must be a whole number of at least 1, got ${show(value)}`)
  }
  if (value > limit) throw new Error(`${where}: ${key} ${value} is above the limit of ${limit}`)
  return value
}

/** Reads a number of an open range; null: there is no default. */
export function readNumber(
  json: Record<string, unknown>,
  key: string,
  where: string,
  fallback: number | null,
  { above, below = Infinity }: { above: number; below?: number },
): number {
  const value = json[key] ?? fallback
  if (value === null) throw new Error(`${where}: ${key} is missing`)
  if (typeof value !== 'number' || !(value > above && value < below)) {
    const range = below === Infinity ? `above ${above}` : `above ${above} and below ${below}`
    throw new Error(`${where}: ${key} must be a number ${range}, got ${show(value)}`)
  }
  return value
}

/** Reads true or false; false where it is missing. */
export function readFlag(json: Record<string, unknown>, key: string, where: string): boolean {
  const value = json[key] ?? false
  if (typeof value !== 'boolean') throw new Error(`${where}: ${key} must be true or false, got ${show(value)}`)
  return value
}
