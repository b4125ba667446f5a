// States of files of features as rows of one matrix, whether they are of rows or of pairs.
import { show } from '../files/json.ts'
import { openSafetensors } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import { arrayBlocks, concatBlocks, type FeatureBlocks, tensorArray } from '../files/table.ts'

const FLOATS = ['F32', 'BF16', 'F16'] as const

/** The states "embeddings" of files, [N, D] or both sides of pairs [N, 2, D], as rows of one matrix. */
export async function stateRows(sources: readonly Source[]): Promise<FeatureBlocks> {
  const parts: FeatureBlocks[] = []
  for (const source of sources) {
    const info = (await openSafetensors(source)).tensors.get('embeddings')
    const shape = info?.shape ?? []
    if (info === undefined || (shape.length !== 2 && !(shape.length === 3 && shape[1] === 2))) {
      throw new Error(`${source.name}: must have a tensor "embeddings" [N, D] or [N, 2, D], got ${show(info?.shape)}`)
    }
    const columns = shape[shape.length - 1]
    const rows = shape.slice(0, -1).reduce((product, n) => product * n, 1)
    if (rows === 0 || columns === 0) throw new Error(`${source.name}: embeddings are empty: ${show(shape)}`)
    parts.push(arrayBlocks({ ...tensorArray(info, FLOATS), shape: [rows, columns] }))
  }
  return concatBlocks(
    parts,
    sources.length === 1 ? sources[0].name : `${sources[0].name} and ${sources.length - 1} more`,
  )
}
