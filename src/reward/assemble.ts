// Joins heads and a backbone into one model directory.
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { openWork, WORK_FILE } from '../files/work.ts'
import { parseLlamaConfig } from '../llama/config.ts'
import { findTensors } from '../llama/weights.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import { backboneTensors, type CheckpointFile, encodeCheckpoint } from './encode.ts'
import type { Layout } from './layouts.ts'
import { type FixedWeights, orderWeights } from './manifest.ts'

const CONFIG = 'config.json'
const MANIFEST = 'pinball.json'
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
 * Heads for a backbone: its configuration with theirs, and what only the backbone's pinball.json says (BOS policy, gate pattern, lambda).
 * `weights` take the place of a gate, or of theirs. Throws on heads for states of another width, and on weights of other attributes.
 */
export async function headsFor(
  backbone: ModelFiles,
  heads: ModelFiles,
  { weights }: { readonly weights?: FixedWeights } = {},
): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(heads)
  const config = await readJson(backbone, CONFIG)
  if (config === null) throw new Error(`${backbone.name}/${CONFIG}: is missing; a model directory needs it`)
  const { hidden } = parseLlamaConfig(config, `${backbone.name}/${CONFIG}`)
  if (hidden !== checkpoint.config.hidden_size) {
    throw new Error(
      `${heads.name}: heads must be for states of ${hidden} columns, as ${backbone.name} gives them, got ${checkpoint.config.hidden_size}`,
    )
  }
  if (weights !== undefined) orderWeights(weights, checkpoint.manifest.attributes, `${heads.name}: weights`)
  const own = (await readJson(backbone, MANIFEST)) ?? {}
  const said = (await readJson(heads, MANIFEST)) ?? {}
  const manifest = { ...checkpoint.manifest, ...onlyOf(own, said), ...(weights !== undefined && { weights }) }
  const headConfig = Object.fromEntries(Object.entries(checkpoint.config).filter(([key]) => !(key in config)))
  return { ...checkpoint, config: { ...config, ...headConfig }, manifest }
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

async function readJson(files: ModelFiles, file: string): Promise<Record<string, unknown> | null> {
  const text = await readText(files, file)
  return text === null ? null : parseJsonObject(text, `${files.name}/${file}`)
}

/** Settings that the backbone's manifest has and the heads' has not. */
function onlyOf(own: Record<string, unknown>, said: Record<string, unknown>): Record<string, unknown> {
  const fields = { bos: 'bos', gate_pattern: 'gatePattern', lambda: 'lambda' }
  const taken = Object.entries(fields).filter(([key]) => !(key in said) && key in own)
  return Object.fromEntries(taken.map(([key, field]) => [field, own[key]]))
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
