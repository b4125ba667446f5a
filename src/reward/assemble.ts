// Joins heads and a backbone into one model directory.
import { closeTensors, openModelTensors } from '../files/safetensors.ts'
import type { ModelFiles } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { openWork, WORK_FILE } from '../files/work.ts'
import { parseLlamaConfig } from '../llama/config.ts'
import { findTensors } from '../llama/weights.ts'
import { backboneTensors, type CheckpointFile, encodeCheckpoint } from './encode.ts'
import { headsFor } from './heads_for.ts'
import type { Layout } from './layouts.ts'
import type { FixedWeights } from './manifest.ts'

const CONFIG = 'config.json'
const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'special_tokens_map.json']
/** What `assemble` writes, and no other files. */
const WRITTEN =
  /^(config\.json|pinball\.json|(calibration|fitted)\.safetensors|model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?)$/
const PIECE_BYTES = 4 * 2 ** 20

export interface Assembled {
  readonly layout: Layout
  /** Names of the files, in the order of the checkpoint's parts. */
  readonly files: readonly string[]
  /** Names of tensors and files of the backbone's directory that are no part of the model. */
  readonly leftOut: readonly string[]
}

/**
 * Writes a model directory of a backbone with its tokenizer, and of heads with their calibration. What only the backbone's pinball.json
 * says (BOS policy, gate pattern, lambda) is taken over. `out` must be missing, empty, cut off work of this kind, or hold exactly what
 * would be written, and then nothing is done. config.json comes last: what a crash leaves is no model, and the same call mends it.
 * Throws as `headsFor`, and on a backbone that lacks tensors or has some that no Llama has.
 */
export async function assemble(
  backbone: ModelFiles,
  heads: ModelFiles,
  out: Store,
  options: { readonly weights?: FixedWeights } = {},
): Promise<Assembled> {
  const whole = await headsFor(backbone, heads, options)
  const llama = parseLlamaConfig(whole.config, `${backbone.name}/${CONFIG}`)
  const tensors = await openModelTensors(backbone)
  try {
    findTensors(tensors, llama, backbone.name)
    async function* outputs(): AsyncGenerator<CheckpointFile> {
      yield* encodeCheckpoint(whole, tensors)
      for (const file of TOKENIZER_FILES) {
        const source = await backbone.open(file)
        if (source === null) continue
        const chunks = [await source.read(0, source.byteLength).finally(() => source.close())]
        yield { file, chunks }
      }
    }
    const names = await out.list()
    const begun = names.includes(WORK_FILE)
    const files = names.length > 0 && !begun ? await compare(outputs(), names, out) : await write(outputs(), names, out)
    const others = ((await backbone.list?.()) ?? []).filter(
      (file) => !file.startsWith('.') && !WRITTEN.test(file) && !TOKENIZER_FILES.includes(file),
    )
    return { layout: whole.layout, files, leftOut: [...backboneTensors(tensors).leftOut, ...others] }
  } finally {
    await closeTensors(tensors)
  }
}

/** Writes the files; those of a call that was cut off are removed first. Gives their names. */
async function write(outputs: AsyncIterable<CheckpointFile>, names: readonly string[], out: Store): Promise<string[]> {
  const work = await openWork(out, { command: 'assemble', settings: {}, restart: true })
  for (const name of names) if (WRITTEN.test(name) || TOKENIZER_FILES.includes(name)) await out.remove(name)
  const files: string[] = []
  let config: CheckpointFile | null = null
  for await (const output of outputs) {
    files.push(output.file)
    if (output.file === CONFIG) config = output
    else await out.write(output.file, output.chunks)
  }
  if (config) await out.write(CONFIG, config.chunks)
  await work.end()
  return files
}

/** Throws unless the store holds exactly what would be written. Gives the names. */
async function compare(
  outputs: AsyncIterable<CheckpointFile>,
  names: readonly string[],
  out: Store,
): Promise<string[]> {
  const files: string[] = []
  const refuse = () => {
    throw new Error(`${out.name}: must be missing or empty; choose another --out`)
  }
  for await (const output of outputs) {
    if (!names.includes(output.file) || !(await holds(out, output))) refuse()
    files.push(output.file)
  }
  if (files.length !== names.length) refuse()
  return files
}

async function holds(store: Store, { file, chunks }: CheckpointFile): Promise<boolean> {
  const source = await store.open(file)
  if (source === null) return false
  try {
    let at = 0
    for (const chunk of chunks) {
      if (at + chunk.length > source.byteLength) return false
      for (let done = 0; done < chunk.length; done += PIECE_BYTES) {
        const piece = chunk.subarray(done, done + PIECE_BYTES)
        const found = await source.read(at + done, piece.length)
        if (found.some((byte, i) => byte !== piece[i])) return false
      }
      at += chunk.length
    }
    return at === source.byteLength
  } finally {
    await source.close()
  }
}
