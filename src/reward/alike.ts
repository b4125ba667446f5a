// Files of features that are read as one must be of one kind.
import { show } from '../files/json.ts'
import type { Safetensors } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'

interface Opened {
  readonly source: Source
  readonly opened: Safetensors
}

/** Throws where only one of two files has one of the `optional` tensors, or both say that different models made them. */
export function checkAlike(one: Opened, other: Opened, optional: readonly string[]): void {
  const [a, b] = [one.source.name, other.source.name]
  for (const name of optional) {
    if (one.opened.tensors.has(name) === other.opened.tensors.has(name)) continue
    const [lacking, having] = one.opened.tensors.has(name) ? [b, a] : [a, b]
    throw new Error(`${lacking}: has no tensor "${name}", ${having} has it`)
  }
  const [model, its] = [one.opened.metadata.fingerprint, other.opened.metadata.fingerprint]
  if (model !== undefined && its !== undefined && model !== its) {
    throw new Error(`${b}: was made by another model than ${a} (fingerprint ${show(its)}, not ${show(model)})`)
  }
}
