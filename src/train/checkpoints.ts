// What training gives as the files of a heads directory: a model directory without backbone and tokenizer.
//
// Sources: the layouts of QRM and of ArmoRM (both LlamaForRewardModelWithGating), and of LlamaForSequenceClassification.
import { encodeSafetensors, type TensorData } from '../files/safetensors.ts'
import type { CheckpointFile } from '../reward/encode.ts'
import type { HeadsFile } from '../reward/heads_file.ts'
import type { TrainedGate } from './gating.ts'

/** Quantile heads with their gate in the layout of QRM, point heads in that of ArmoRM. */
export function gateFiles(heads: HeadsFile, gate: TrainedGate): CheckpointFile[] {
  const { attributes, levels, columns, weight, bias, transform } = heads
  const [count, outputs] = [attributes.length, attributes.length * (levels?.length ?? 1)]
  const tensors: TensorData[] = [f32('regression_layer.weight', [outputs, columns], weight)]
  if (bias) tensors.push(f32('regression_layer.bias', [outputs], bias))
  if (transform) tensors.push(f32('reward_transform_matrix', [count, count], transform))
  tensors.push(f32('gating.logit_scale', [1], Float32Array.of(gate.logitScale)))
  for (const { name, shape, data } of gate.tensors) tensors.push(f32(name, shape, data))
  for (const name of gate.counters) {
    tensors.push({ name, dtype: 'I64', shape: [], data: BigInt64Array.of(0n) })
  }
  const config = {
    architectures: ['LlamaForRewardModelWithGating'],
    model_type: 'llama',
    hidden_size: columns,
    num_objectives: count,
    ...(levels && { num_quantiles: levels.length }),
    gating_temperature: gate.temperature,
    gating_hidden_dim: gate.hidden,
    gating_n_hidden: gate.layers,
  }
  return files(config, { attributes, ...(levels && { levels }) }, tensors)
}

/** A Bradley-Terry head [D]. */
export function scoreFiles(weight: Float32Array): CheckpointFile[] {
  const config = {
    architectures: ['LlamaForSequenceClassification'],
    model_type: 'llama',
    hidden_size: weight.length,
    num_labels: 1,
  }
  return files(config, {}, [f32('score.weight', [1, weight.length], weight)])
}

function f32(name: string, shape: readonly number[], data: Float32Array): TensorData {
  return { name, dtype: 'F32', shape, data }
}

function files(config: object, manifest: object, tensors: TensorData[]): CheckpointFile[] {
  const json = (value: object) => new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`)
  return [
    { file: 'config.json', chunks: [json(config)] },
    { file: 'pinball.json', chunks: [json(manifest)] },
    { file: 'model.safetensors', chunks: encodeSafetensors(tensors, { format: 'pt' }) },
  ]
}
