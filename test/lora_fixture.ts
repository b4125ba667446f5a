// The models, adapters and batches of test/fixtures/lora, widened, for the float64 reference.
import { readdirSync, readFileSync } from 'node:fs'
import { openSafetensors, readTensor, readTensorF32 } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { readShape } from './reference/llama.ts'
import type { Arrays, Model, Sequence } from './reference/llama_grad.ts'

export const LORA_FOLDER = new URL('./fixtures/lora/', import.meta.url)

/** The causal cases of the fixtures. */
export const LORA_CASES = (
  JSON.parse(readFileSync(new URL('index.json', LORA_FOLDER), 'utf8')) as { readonly cases: string[] }
).cases

/** Settings of the ten steps, and the coefficient of centring. */
export const loraIndex = () =>
  JSON.parse(readFileSync(new URL('index.json', LORA_FOLDER), 'utf8')) as {
    readonly training: {
      readonly lr: number
      readonly weight_decay: number
      readonly max_grad_norm: number
      readonly warmup: number
    }
    readonly center: number
  }

/** The files of a folder of the fixtures. */
export function folderFiles(path: string): Record<string, Uint8Array> {
  const folder = new URL(`${path}/`, LORA_FOLDER)
  return Object.fromEntries(
    readdirSync(folder).map((file) => [file, new Uint8Array(readFileSync(new URL(file, folder)))]),
  )
}

/** All tensors of a safetensors file as numbers: F64 and I32 as they are, other floats widened. */
export async function readArrays(url: URL): Promise<Map<string, Float64Array | Int32Array | Float32Array>> {
  const { tensors } = await openSafetensors(memorySource(url.pathname, readFileSync(url)))
  const arrays = new Map<string, Float64Array | Int32Array | Float32Array>()
  for (const [name, info] of tensors) {
    if (info.dtype !== 'F64' && info.dtype !== 'I32') arrays.set(name, await readTensorF32(info))
    else {
      const { buffer, byteOffset, byteLength } = await readTensor(info)
      const bytes = buffer.slice(byteOffset, byteOffset + byteLength)
      arrays.set(name, info.dtype === 'F64' ? new Float64Array(bytes) : new Int32Array(bytes))
    }
  }
  return arrays
}

/** Scaling of a projection as PEFT has it: patterns match the end of the name. */
export function scalingOf(config: Record<string, unknown>): (name: string) => number {
  const pick = (pattern: unknown, name: string, usual: number): number => {
    for (const [key, value] of Object.entries((pattern ?? {}) as Record<string, number>))
      if (new RegExp(`(^|.*\\.)(${key})$`).test(name)) return value
    return usual
  }
  return (name) => {
    const rank = pick(config.rank_pattern, name, config.r as number)
    const alpha = pick(config.alpha_pattern, name, config.lora_alpha as number)
    return alpha / (config.use_rslora ? Math.sqrt(rank) : rank)
  }
}

/** One case: the reference's model, its batch, and what PyTorch made of it. */
export async function loraCase(name: string): Promise<{ model: Model; batch: Sequence[]; expected: Arrays }> {
  const at = (path: string) => new URL(`${name}/${path}`, LORA_FOLDER)
  const json = (path: string) => JSON.parse(readFileSync(at(path), 'utf8')) as Record<string, unknown>
  const weights = await readArrays(at('model/model.safetensors'))
  const stored = await readArrays(at('adapter/adapter_model.safetensors'))
  const adapter = new Map([...stored].map(([key, value]) => [key.replace('base_model.model.', ''), value]))
  const expected = await readArrays(at('expected.safetensors'))
  const batch: Sequence[] = []
  for (let i = 0; expected.has(`tokens_${i}`); i++)
    batch.push({ tokens: expected.get(`tokens_${i}`)!, labels: expected.get(`labels_${i}`)! })
  const model = {
    shape: readShape(json('model/config.json')),
    weights,
    adapter,
    scaling: scalingOf(json('adapter/adapter_config.json')),
  }
  return { model, batch, expected }
}
