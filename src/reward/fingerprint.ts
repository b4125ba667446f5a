// The fingerprint of a model directory: one SHA-256 over everything that its scores depend on.
import { BLOCK_BYTES, digest } from '../files/hash.ts'
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { type Adapter, hashAdapter, readAdapter } from '../llama/adapter_files.ts'
import { parseLlamaConfig } from '../llama/config.ts'

const FILES = ['config.json', 'pinball.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']

/**
 * SHA-256 (64 hexadecimal digits) of a text with one line for each file that says how to use the model (those that are there)
 * and one for each tensor, by name: dtype, shape, and the SHA-256 of each 8 MiB of its bytes. So it does not depend on how the
 * tensors are laid out in files. Reads every byte once and holds one block. Throws where the runtime has no Web Crypto.
 */
export async function fingerprint(files: ModelFiles, tensors: ReadonlyMap<string, TensorInfo>): Promise<string> {
  const lines = ['pinball model 1']
  const buffer = new Uint8Array(BLOCK_BYTES)
  for (const file of FILES) {
    const source = await files.open(file)
    if (source === null) continue
    try {
      lines.push(`file ${file} ${await digest(await source.read(0, source.byteLength))}`)
    } finally {
      await source.close()
    }
  }
  for (const name of [...tensors.keys()].sort()) {
    const { dtype, shape, begin, end, source } = tensors.get(name)!
    const blocks: string[] = []
    for (let at = begin; at < end; at += BLOCK_BYTES) {
      blocks.push(await digest(await source.read(at, Math.min(BLOCK_BYTES, end - at), buffer)))
    }
    lines.push(`tensor ${JSON.stringify(name)} ${dtype} ${JSON.stringify(shape)} ${blocks.join(' ')}`)
  }
  return digest(new TextEncoder().encode(`${lines.join('\n')}\n`))
}

/** The fingerprint of a model under an adapter, from that of the model; without an adapter they are the same. */
export async function adaptedFingerprint(base: string, adapter: Adapter | null): Promise<string> {
  if (adapter === null) return base
  return digest(new TextEncoder().encode(`pinball adapted model 1\n${base}\n${await hashAdapter(adapter)}\n`))
}

/** The fingerprint of a model that is not loaded, under an adapter or (null) none. Throws as `readAdapter` does. */
export async function fingerprintOf(files: ModelFiles, adapter: ModelFiles | null): Promise<string> {
  const tensors = await openModelTensors(files)
  try {
    const base = await fingerprint(files, tensors)
    if (adapter === null) return base
    const where = `${files.name}/config.json`
    const config = parseLlamaConfig(parseJsonObject((await readText(files, 'config.json')) ?? '', where), where)
    return await adaptedFingerprint(base, await readAdapter(adapter, config))
  } finally {
    await closeTensors(tensors)
  }
}
