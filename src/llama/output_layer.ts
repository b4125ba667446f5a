// The output layer by blocks of the vocabulary: log-probabilities of chosen tokens, and their gradient, while at most one block of
// logits exists.
//
// Source: the online softmax of Milakov and Gimelshein 2018, over blocks of rows of the output matrix.

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { TensorInfo } from '../files/safetensors.ts'
import type { LlamaConfig } from './config.ts'
import { addLinearGradInput, linear, linearOfFew } from './linear.ts'
import { passTensors } from './pass_tensors.ts'
import { readPieces, storageOf } from './weights.ts'

/** Bytes of logits that exist at once: a whole step of a small model, and a part of what 128,256 tokens would take. */
const LOGIT_BYTES = 192 * 2 ** 20
/** Bytes of one tensor of weights: WebGPU's default limit of a binding. */
const BLOCK_BYTES = 2 ** 27
/** Blocks begin at multiples of this many rows, so that every view of them is aligned. */
const ROWS = 128

/** What the model thinks of the wanted tokens. */
export interface TokenMeasures {
  /** Log-probability of each wanted token [R]. */
  readonly logprobs: Float32Array
  /** Entropy of each distribution in nats [R]. */
  readonly entropies: Float32Array
  /** Whether no other token is more probable [R]. */
  readonly hits: readonly boolean[]
}

export interface Measured extends TokenMeasures {
  /**
   * Writes into dx [R, D] the gradient of sum over r of -coefficients[r] * logprobs[r] by the states. May be called once; the states
   * must still be there.
   */
  backward(coefficients: Float32Array, dx: Tensor): void
  destroy(): void
}

export interface MeasureOptions {
  /** Logits are divided by it; default 1. */
  readonly temperature?: number
}

export interface OutputLayer {
  /** Measures the wanted tokens after states x [R, D]. */
  measure(x: Tensor, wanted: Uint32Array, options?: MeasureOptions): Promise<Measured>
  /** All logits [R, V] after states x [R, D] of few rows. A row's do not depend on the others. */
  logits(x: Tensor): Promise<Float32Array>
  destroy(): void
}

interface Block {
  readonly first: number
  readonly weight: Tensor
}

/** The output matrix of a causal model, which may be its embedding; undefined where there is none. */
export function outputInfo(tensors: ReadonlyMap<string, TensorInfo>, config: LlamaConfig): TensorInfo | undefined {
  const tied = tensors.get('model.embed_tokens.weight') ?? tensors.get('embed_tokens.weight')
  return tensors.get('lm_head.weight') ?? (config.tiedEmbeddings ? tied : undefined)
}

/** Loads the output matrix [V, D], which is the embedding table where a model has none of its own. */
export async function openOutputLayer(
  device: Device,
  { vocab, hidden }: LlamaConfig,
  info: TensorInfo,
  { logitBytes = LOGIT_BYTES }: { readonly logitBytes?: number } = {},
): Promise<OutputLayer> {
  const dtype = storageOf(info)
  const rowBytes = (info.end - info.begin) / vocab
  const most = Math.min(BLOCK_BYTES, device.backend.maxTensorBytes)
  const step = Math.max(ROWS, Math.floor(most / rowBytes / ROWS) * ROWS)
  const blocks: Block[] = []
  const destroy = (): void => {
    for (const { weight } of blocks.splice(0)) weight.destroy()
  }
  try {
    for (let first = 0; first < vocab; first += step) {
      const rows = Math.min(step, vocab - first)
      const part = { ...info, begin: info.begin + first * rowBytes, end: info.begin + (first + rows) * rowBytes }
      const weight = device.tensor([rows, hidden], { dtype, label: `${info.name} from ${first}` })
      blocks.push({ first, weight })
      await readPieces(part, (data, at) => weight.write(data, at))
    }
  } catch (error) {
    destroy()
    throw error
  }
  return {
    measure: (x, wanted, { temperature = 1 } = {}) =>
      measure(device, divide(blocks, x.shape[0]!, logitBytes), x, wanted, 1 / temperature),
    logits: (x) => readLogits(device, divide(blocks, x.shape[0]!, logitBytes), x, vocab),
    destroy,
  }
}

/** Blocks of which the logits of R rows fit the memory for them. */
function divide(blocks: readonly Block[], R: number, logitBytes: number): Block[] {
  const most = Math.max(ROWS, Math.floor(logitBytes / (4 * R) / ROWS) * ROWS)
  return blocks.flatMap(({ first, weight }) => {
    const [rows, D] = weight.shape as [number, number]
    if (rows <= most) return [{ first, weight }]
    const parts: Block[] = []
    for (let row = 0; row < rows; row += most) {
      const count = Math.min(most, rows - row)
      parts.push({ first: first + row, weight: weight.view([count, D], { offset: row * D }) })
    }
    return parts
  })
}

async function readLogits(device: Device, blocks: readonly Block[], x: Tensor, V: number): Promise<Float32Array> {
  const R = x.shape[0]!
  const widest = Math.max(...blocks.map(({ weight }) => weight.shape[0]!))
  const memory = device.tensor([R * widest], { label: 'logits' })
  try {
    let all: Float32Array | null = null
    for (const { first, weight } of blocks) {
      const rows = weight.shape[0]!
      const logits = memory.view([R, rows])
      linearOfFew(device, x, weight, logits)
      const part = await logits.readF32()
      if (rows === V) return part
      all ??= new Float32Array(R * V)
      for (let r = 0; r < R; r++) all.set(part.subarray(r * rows, (r + 1) * rows), r * V + first)
    }
    return all!
  } finally {
    memory.destroy()
  }
}

async function measure(
  device: Device,
  blocks: readonly Block[],
  x: Tensor,
  wanted: Uint32Array,
  scale: number,
): Promise<Measured> {
  const R = x.shape[0]!
  const { make, index, vector, destroy } = passTensors(device)
  try {
    const running = (label: string, value: number) => vector(label, new Float32Array(R).fill(value))
    const [top, total] = [running('largest logit', -1e30), running('sum of the softmax', 0)]
    const [spread, hit] = [running('spread of the softmax', 0), running('wanted logit', 0)]
    const target = index('wanted', Uint32Array.from(wanted), R)
    const widest = Math.max(...blocks.map(({ weight }) => weight.shape[0]!))
    const memory = make('logits', R * widest)
    const logitsOf = ({ weight }: Block): Tensor => {
      const logits = memory.view([R, weight.shape[0]!])
      linear(device, x, weight, logits)
      return logits
    }
    for (const block of blocks) {
      const state = { wanted: target, top, total, spread, hit }
      device.run('cross_entropy', { x: logitsOf(block), ...state }, { first: block.first, scale })
    }
    const [tops, totals, spreads, hits] = await Promise.all([top, total, spread, hit].map((tensor) => tensor.readF32()))
    const lse = Float32Array.from(tops!, (value, r) => value + Math.log(totals![r]!))
    return {
      logprobs: lse.map((value, r) => hits![r]! - value),
      entropies: lse.map((_, r) => Math.log(totals![r]!) - spreads![r]! / totals![r]!),
      hits: Array.from(hits!, (value, r) => value >= tops![r]!),
      backward(coefficients, dx) {
        const sums = vector('lse', lse)
        const coefficient = vector('coefficients', coefficients)
        device.fill(dx)
        for (const block of blocks) {
          // A single block is still there.
          const logits = blocks.length > 1 ? logitsOf(block) : memory.view([R, block.weight.shape[0]!])
          const tensors = { x: logits, wanted: target, lse: sums, coefficient }
          device.run('cross_entropy_grad', tensors, { first: block.first, scale })
          addLinearGradInput(device, logits, block.weight, dx)
        }
      },
      destroy,
    }
  } catch (error) {
    destroy()
    throw error
  }
}
