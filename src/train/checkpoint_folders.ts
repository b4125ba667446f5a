// Checkpoints of a training as folders checkpoint-N in its folder: each appears whole or not at all, the last few are kept.
//
// A folder is made under the name checkpoint-N.partial and renamed when all is in it; one that goes is renamed to
// checkpoint-N.removed first. Its file pinball-checkpoint.json is written first and, when all is there, names the others with their
// hashes: folders without it were made by somebody else and are neither counted nor written to, and of those that go only what it
// names is removed.
import { BlockHash, hex } from '../files/hash.ts'
import { isObject, parseJsonObject, printable } from '../files/json.ts'
import { readText } from '../files/source.ts'
import { fileDigest, type Store, type StoreTree } from '../files/store.ts'
import type { CheckpointFile } from '../reward/encode.ts'

const NAME = /^checkpoint-(\d+)$/
const REMOVED = /^checkpoint-\d+\.removed$/
const LIST = 'pinball-checkpoint.json'

/** Steps of the checkpoints that are there, ascending. */
export async function listCheckpoints(tree: StoreTree): Promise<number[]> {
  const steps: number[] = []
  for (const name of await tree.folders()) {
    const [, step] = NAME.exec(name) ?? []
    if (step !== undefined && (await readList(tree.folder(name))) !== null) steps.push(Number(step))
  }
  return steps.sort((a, b) => a - b)
}

/**
 * Writes checkpoint-`step`, then removes the oldest of more than `keep`. A checkpoint of the same contents that is there already is
 * left as it is: training went on from before it. Throws where the folder holds something else.
 */
export async function saveCheckpoint(
  tree: StoreTree,
  step: number,
  files: AsyncIterable<CheckpointFile> | Iterable<CheckpointFile>,
  { keep }: { readonly keep: number },
): Promise<void> {
  const name = `checkpoint-${step}`
  const partial = tree.folder(`${name}.partial`)
  if ((await partial.list()).length > 0 && (await readList(partial)) === null) {
    throw new Error(
      `${printable(tree.name)}/${name}.partial: is not of this training and stays; move it away and run the same command again`,
    )
  }
  await writeList(partial, step, {})
  const hashes: Record<string, string> = {}
  for await (const { file, chunks } of files) {
    await partial.write(file, chunks)
    const hash = new BlockHash()
    for (const chunk of chunks) await hash.update(chunk)
    hashes[file] = hex(await hash.result())
  }
  await writeList(partial, step, hashes)
  if ((await tree.folders()).includes(name)) {
    const there = await readList(tree.folder(name))
    await empty(partial)
    if (JSON.stringify(there) !== JSON.stringify(hashes)) {
      throw new Error(
        `${printable(tree.name)}/${name}: is not of this training and stays; move it away and run the same command again`,
      )
    }
  } else await tree.renameFolder(`${name}.partial`, name)
  await keepCheckpoints(tree, keep)
}

/** Removes all but the last `keep` checkpoints; 0 before a training begins anew. */
export async function keepCheckpoints(tree: StoreTree, keep: number): Promise<void> {
  for (const name of await tree.folders()) if (REMOVED.test(name)) await empty(tree.folder(name))
  const steps = await listCheckpoints(tree)
  for (const step of steps.slice(0, Math.max(0, steps.length - keep))) {
    const gone = `checkpoint-${step}.removed`
    await tree.renameFolder(`checkpoint-${step}`, gone)
    await empty(tree.folder(gone))
  }
}

async function writeList(folder: Store, step: number, files: Record<string, string>): Promise<void> {
  const list = JSON.stringify({ pinball: 'checkpoint', step, files }, null, 2)
  await folder.write(LIST, [new TextEncoder().encode(`${list}\n`)])
}

/** The files of a checkpoint with their hashes; null where the folder is none of Pinball's. */
async function readList(folder: Store): Promise<Record<string, unknown> | null> {
  const text = await readText(folder, LIST)
  if (text === null) return null
  const { pinball, files } = parseJsonObject(text, `${folder.name}/${LIST}`)
  return pinball === 'checkpoint' && isObject(files) ? files : null
}

/** Removes what a checkpoint's list names and that is still the same, the list, and the folder if nothing else is in it. */
async function empty(folder: Store): Promise<void> {
  for (const [file, hash] of Object.entries((await readList(folder)) ?? {})) {
    if ((await fileDigest(folder, file)) === hash) await folder.remove(file)
  }
  await folder.remove(LIST)
  await folder.removeIfEmpty()
}
