// The table of datasets: everything that a name can mean.
import { ATTRIBUTE_SETS, MERGED_SETS } from './attribute_sets.ts'
import type { Dataset } from './dataset.ts'
import { EVALUATION_SETS, PREFERENCE_SETS } from './preference_sets.ts'

/** All datasets: ratings, preferences, benchmarks. */
export const DATASETS: readonly Dataset[] = [...ATTRIBUTE_SETS, ...MERGED_SETS, ...PREFERENCE_SETS, ...EVALUATION_SETS]

/** Names of several datasets at once. */
const GROUPS: Record<string, readonly Dataset[]> = { attributes: ATTRIBUTE_SETS, preferences: PREFERENCE_SETS }

/**
 * Finds datasets by their names, or by `attributes` (the paper's eight) and `preferences` (the paper's ten). Throws on unknown
 * names, one that is there twice, and sets that give rows of different kinds.
 */
export function findDatasets(names: readonly string[]): Dataset[] {
  const found: Dataset[] = []
  for (const name of names) {
    const one = DATASETS.find((dataset) => dataset.name === name)
    const sets = Object.hasOwn(GROUPS, name) ? GROUPS[name] : one && [one]
    if (!sets) {
      const known = [...Object.keys(GROUPS), ...DATASETS.map((dataset) => dataset.name)]
      throw new Error(`${JSON.stringify(name)} is no dataset; known are ${known.join(', ')}`)
    }
    found.push(...sets)
  }
  const twice = found.find((dataset, i) => found.indexOf(dataset) !== i)
  if (twice) throw new Error(`dataset ${twice.name} is there twice`)
  const other = found.find(({ kind }) => kind !== found[0].kind)
  if (other) {
    throw new Error(`${found[0].name} gives ${found[0].kind} and ${other.name} ${other.kind}; write them to two files`)
  }
  return found
}
