// Hidden states per sequence: the engine's, split out of its packed rows, and those of the float64 reference.
import { openModelTensors, readTensorF32 } from '../src/files/safetensors.ts'
import { type ModelFiles, readText } from '../src/files/source.ts'
import type { Llama } from '../src/llama/forward.ts'
import { readShape, llama as reference } from './reference/llama.ts'

/** Runs one batch and gives the hidden states [T, D] of each of its sequences. */
export async function hiddenOf(llama: Llama, sequences: readonly Uint32Array[]): Promise<Float32Array[]> {
  const states = await llama.hidden(sequences)
  try {
    const D = states.x.shape[1]
    const x = await states.x.readF32()
    return sequences.map(({ length }, i) => x.slice(states.first[i] * D, (states.first[i] + length) * D))
  } finally {
    states.destroy()
  }
}

/** The reference of a model directory: a function from token ids to hidden states [T, D]. */
export async function openReference(files: ModelFiles): Promise<(tokens: Uint32Array) => Float64Array> {
  const shape = readShape(JSON.parse((await readText(files, 'config.json'))!) as Record<string, unknown>)
  const weights = new Map<string, Float32Array>()
  for (const [name, info] of await openModelTensors(files)) weights.set(name, await readTensorF32(info))
  return (tokens) => reference(shape, weights, tokens)
}
