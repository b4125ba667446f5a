// Shards of an input: which rows are in which, and what the files of a shard are called.
import { isObject } from '../../files/json.ts'
import { Sha256 } from '../../files/sha256.ts'

export interface Shard {
  /** Counts from 0. */
  readonly index: number
  readonly count: number
}

/** An input that is not divided. */
export const WHOLE: Shard = { index: 0, count: 1 }

/** The file of a shard: F-00001-of-00004.safetensors for F.safetensors; the name itself where the input is not divided. */
export function shardName(out: string, shard: Shard | undefined): string {
  if (shard === undefined) return out
  const digits = (value: number) => String(value).padStart(5, '0')
  return `${out.replace(/\.safetensors$/, '')}-${digits(shard.index)}-of-${digits(shard.count)}.safetensors`
}

/**
 * The shard of a row: the first 48 bits of the SHA-256 of a text, modulo the number of shards. The text is `pinball shard 1`, a line
 * feed, and as JSON the row's id or, where it has none, what is scored, with sorted keys. So it depends neither on the order of
 * rows nor on their labels.
 */
export function shardOf(id: string | number | undefined, scored: Record<string, unknown>, count: number): number {
  if (count === 1) return 0
  const key = id === undefined ? canonical(scored) : JSON.stringify(id)
  const hash = new Sha256().update(`pinball shard 1\n${key}`).digest()
  return hash.subarray(0, 6).reduce((number, byte) => number * 256 + byte, 0) % count
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (!isObject(value)) return JSON.stringify(value) ?? 'null'
  const entries = Object.keys(value).sort()
  return `{${entries.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`
}
