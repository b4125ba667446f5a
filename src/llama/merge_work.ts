// A merge into a folder that is marked as work while it is made, so that the next one can tell its remains from other files.
import { show } from '../files/json.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { openWork, WORK_FILE } from '../files/work.ts'
import { type MergeOptions, type MergeReport, mergeAdapter } from './merge.ts'

/** Files of tensors that a merge writes; all others have their names from the base. */
const TENSOR_FILE = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/

/**
 * Merges as `mergeAdapter` does, in the place of what an earlier merge has left in the store. Throws where the store holds a file that no
 * merge of this base wrote, and where another process works in it. Where it fails before anything is written, nothing is left.
 */
export async function mergeAnew(
  base: ModelFiles,
  adapter: ModelFiles,
  store: Store,
  options: MergeOptions,
): Promise<MergeReport> {
  const work = await openWork(store, { command: 'merge', settings: {}, restart: true })
  await removeEarlier(store, (await base.list?.()) ?? [])
  let report: MergeReport
  try {
    report = await mergeAdapter(base, adapter, store, options)
  } catch (error) {
    if ((await store.list()).length === 1) await work.end() // nothing but its mark
    throw error
  }
  await work.end()
  return report
}

/** Removes what a merge that was cut off has left; throws on anything else. */
async function removeEarlier(store: Store, copied: readonly string[]): Promise<void> {
  const names = (await store.list()).filter((name) => name !== WORK_FILE)
  const strange = names.find((name) => !TENSOR_FILE.test(name) && !copied.includes(name))
  if (strange !== undefined) throw new Error(`${store.name}: has ${show(strange)}, which no merge wrote; move it away`)
  for (const name of names) await store.remove(name)
}
