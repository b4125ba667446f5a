// The fingerprint of a model directory: one SHA-256 over everything that its scores depend on.
import { BLOCK_BYTES, digest } from '../files/hash.ts'
import { closeTensors, openModelTensors, type TensorInfo } from '../files/safetensors.ts'
import type { ModelFiles } from '../files/source.ts'

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

/** The fingerprint of a model directory that is not opened otherwise. */
export async function fingerprintFiles(files: ModelFiles): Promise<string> {
  const tensors = await openModelTensors(files)
  try {
    return await fingerprint(files, tensors)
  } finally {
    await closeTensors(tensors)
  }
}
