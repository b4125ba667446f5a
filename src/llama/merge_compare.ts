// What a merged model computes beside its base under the adapter, on a few sequences of tokens that are made up.
import type { Device } from '../device/device.ts'
import { parseJsonObject } from '../files/json.ts'
import { closeTensors, openModelTensors, readTensorF32, type TensorInfo } from '../files/safetensors.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import type { Adapter } from './adapter_files.ts'
import type { LlamaConfig } from './config.ts'
import { createLlama } from './forward.ts'
import { loadAdapter } from './lora_adapter.ts'
import { openOutputLayer, outputInfo } from './output_layer.ts'

/** Tokens of each sequence, where the model takes as many. */
const LENGTHS = [1, 7, 24]

/**
 * The largest difference of outputs between a base under an adapter and the merged model: of scores where there is a score head, of
 * log-probabilities where there is an output layer, else of the states after the final norm. The models are loaded one after the
 * other. Throws where an output is not finite.
 */
export async function compareOutputs(
  device: Device,
  base: ModelFiles,
  adapter: Adapter,
  merged: ModelFiles,
): Promise<number> {
  const before = await outputs(device, base, adapter)
  const after = await outputs(device, merged, null)
  let largest = 0
  for (let i = 0; i < before.length; i++) {
    const difference = Math.abs(after[i]! - before[i]!)
    if (!Number.isFinite(difference))
      throw new Error(
        `${merged.name}: outputs must be finite, got ${after[i]} where the base under the adapter gives ${before[i]}`,
      )
    largest = Math.max(largest, difference)
  }
  return largest
}

async function outputs(device: Device, files: ModelFiles, adapter: Adapter | null): Promise<Float64Array> {
  const where = `${files.name}/config.json`
  const tensors = await openModelTensors(files)
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  try {
    const json = parseJsonObject((await readText(files, 'config.json')) ?? '', where)
    const llama = own(await createLlama(device, { name: files.name, config: json, tensors }))
    const { config } = llama
    const layers = adapter ? own(loadAdapter(device, adapter, config)).layers : []
    const sequences = madeUp(config)
    const everywhere = sequences.map(({ length }) => Array.from({ length }, (_, t) => t))
    const states = own(await llama.states(sequences, everywhere, { adapter: layers }))
    const score = adapter?.score?.weight ?? (await readScore(tensors))
    if (score) return dots(await states.x.readF32(), score, config.hidden)
    const info = outputInfo(tensors, config)
    if (!info) return Float64Array.from(await states.x.readF32())
    const wanted = sequences.flatMap((tokens) => Array.from(tokens, (_, t) => tokens[(t + 1) % tokens.length]!))
    const measured = own(
      await own(await openOutputLayer(device, config, info)).measure(states.x, Uint32Array.from(wanted)),
    )
    return Float64Array.from(measured.logprobs)
  } finally {
    for (const thing of owned.reverse()) thing.destroy()
    await closeTensors(tensors)
  }
}

/** Sequences of tokens that are the same for every model of this vocabulary. */
function madeUp({ vocab, maxPosition }: LlamaConfig): Uint32Array[] {
  return LENGTHS.map((length, s) =>
    Uint32Array.from({ length: Math.min(length, maxPosition) }, (_, t) => ((64 * s + t + 1) * 2654435761) % vocab),
  )
}

async function readScore(tensors: ReadonlyMap<string, TensorInfo>): Promise<Float32Array | null> {
  const info = tensors.get('score.weight')
  return info ? readTensorF32(info) : null
}

/** x [N, D] weight^T [n, D] */
function dots(x: Float32Array, weight: Float32Array, D: number): Float64Array {
  const [N, n] = [x.length / D, weight.length / D]
  const y = new Float64Array(N * n)
  for (let i = 0; i < N; i++)
    for (let o = 0; o < n; o++) for (let d = 0; d < D; d++) y[i * n + o] += x[i * D + d]! * weight[o * D + d]!
  return y
}
