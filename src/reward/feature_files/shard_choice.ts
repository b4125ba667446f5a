// The choice of a shard, as a text, or by the environment of a job that says which shard this process makes.
import type { Shard } from './shards.ts'

/** Where a Kubernetes Indexed Job, a Slurm array and an AWS Batch array say which of their processes this is. */
export const SHARD_VARIABLES = ['JOB_COMPLETION_INDEX', 'SLURM_ARRAY_TASK_ID', 'AWS_BATCH_JOB_ARRAY_INDEX']

// Names have five digits.
const SHARD_LIMIT = 99_999

/** Reads `i/n` with i from 0 to n - 1, or `n` with i from the environment. Throws where that is not possible. */
export function parseShard(text: string, environment: Readonly<Record<string, string | undefined>>): Shard {
  const [, first, second] = /^(\d{1,6})(?:\/(\d{1,6}))?$/.exec(text) ?? []
  if (first === undefined) {
    throw new Error(`must be i/n with i from 0 to n - 1, or n with i from the environment, got ${JSON.stringify(text)}`)
  }
  const count = Number(second ?? first)
  if (count < 1 || count > SHARD_LIMIT) throw new Error(`must be of 1 to ${SHARD_LIMIT} shards, got ${count}`)
  if (second !== undefined) return checked(Number(first), count, 'i')
  const set = SHARD_VARIABLES.filter((name) => environment[name] !== undefined && environment[name] !== '')
  if (set.length === 0) {
    throw new Error(`"${text}" needs one of ${SHARD_VARIABLES.join(', ')} in the environment; or give i/${text}`)
  }
  const values = new Set(set.map((name) => environment[name]))
  if (values.size > 1) {
    throw new Error(`${set.map((name) => `${name} is ${environment[name]}`).join(', ')}; give i/${text} instead`)
  }
  const value = environment[set[0]]!
  if (!/^\d{1,6}$/.test(value)) throw new Error(`${set[0]} must be a whole number, got ${JSON.stringify(value)}`)
  return checked(Number(value), count, set[0])
}

function checked(index: number, count: number, name: string): Shard {
  if (index < count) return { index, count }
  throw new Error(`${name} counts from 0, so it must be at most ${count - 1} of ${count} shards, got ${index}`)
}
