// A function of a user's module as a source of rewards.
import { functionReward, type RewardFunction, type RewardSource } from './rewards.ts'

/** What the module exports, and what it is called. */
export interface ModuleReward {
  readonly exported: Readonly<Record<string, unknown>>
  /** Its path, for errors. */
  readonly path: string
  /** SHA-256 of its file; what it imports is not in it. */
  readonly hash: string
}

/**
 * Makes a source of a module that exports a function as default or as `reward`: rows to numbers, or to a promise of them. Its own errors
 * get the path in front. Throws where there is no such function.
 */
export function moduleReward(
  { exported, path, hash }: ModuleReward,
  { name, weight }: { readonly name: string; readonly weight?: number },
): RewardSource {
  const reward = exported.default ?? exported.reward
  if (typeof reward !== 'function')
    throw new Error(`${path}: must export a function as default or as "reward", got ${typeof reward}`)
  const named: RewardFunction = async (rows) => {
    try {
      return await (reward as RewardFunction)(rows)
    } catch (error) {
      throw new Error(`${path}: ${(error as Error)?.message ?? error}`, { cause: error })
    }
  }
  return functionReward(named, { name, weight, identity: { 'a module with the SHA-256': hash } })
}
