// Shards of an input: which one a process makes, which rows are in it, and what its files are called.
import { createHash } from 'node:crypto'
import { isObject } from '../files/json.ts'
import { usageError } from './options.ts'

export interface Shard {
  /** Counts from 0. */
  readonly index: number
  readonly count: number
}

/** An input that is not divided. */
export const WHOLE: Shard = { index: 0, count: 1 }

/** Where a Kubernetes Indexed Job, a Slurm array and an AWS Batch array say which of their processes this is. */
export const SHARD_VARIABLES = ['JOB_COMPLETION_INDEX', 'SLURM_ARRAY_TASK_ID', 'AWS_BATCH_JOB_ARRAY_INDEX']

// Names have five digits.
const SHARD_LIMIT = 99_999

/** Reads --shard: `i/n` with i from 0 to n - 1, or `n` with i from the environment. Wrong usage where that is not possible. */
export function parseShard(text: string, environment: Readonly<Record<string, string | undefined>>): Shard {
  const [, first, second] = /^(\d{1,6})(?:\/(\d{1,6}))?$/.exec(text) ?? []
  if (first === undefined) {
    usageError(
      `--shard: must be i/n with i from 0 to n - 1, or n with i from the environment, got ${JSON.stringify(text)}`,
    )
  }
  const count = Number(second ?? first)
  if (count < 1 || count > SHARD_LIMIT) usageError(`--shard: must be of 1 to ${SHARD_LIMIT} shards, got ${count}`)
  if (second !== undefined) return checked(Number(first), count, 'i')
  const set = SHARD_VARIABLES.filter((name) => environment[name] !== undefined && environment[name] !== '')
  if (set.length === 0) {
    usageError(`--shard: "${text}" needs one of ${SHARD_VARIABLES.join(', ')} in the environment; or give i/${text}`)
  }
  const values = new Set(set.map((name) => environment[name]))
  if (values.size > 1) {
    usageError(`--shard: ${set.map((name) => `${name} is ${environment[name]}`).join(', ')}; give i/${text} instead`)
  }
  const value = environment[set[0]]!
  if (!/^\d{1,6}$/.test(value)) usageError(`--shard: ${set[0]} must be a whole number, got ${JSON.stringify(value)}`)
  return checked(Number(value), count, set[0])
}

function checked(index: number, count: number, name: string): Shard {
  if (index < count) return { index, count }
  usageError(`--shard: ${name} counts from 0, so it must be at most ${count - 1} of ${count} shards, got ${index}`)
}

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
  return createHash('sha256').update(`pinball shard 1\n${key}`).digest().readUIntBE(0, 6) % count
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (!isObject(value)) return JSON.stringify(value) ?? 'null'
  const entries = Object.keys(value).sort()
  return `{${entries.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`
}
