// A LoRA adapter as what is trained: its matrices with gradients and moments, and maybe a head.
import type { Device } from '../device/device.ts'
import type { Adapter, LoraWeights, ScoreHead } from '../llama/adapter_files.ts'
import type { LlamaConfig } from '../llama/config.ts'
import type { LoraLayer, LoraMap } from '../llama/lora.ts'
import { readLayers, transposed } from '../llama/lora_adapter.ts'
import type { LoraGradients } from '../llama/training_pass.ts'
import { moduleOf, type ProjectionName, shapesOf } from '../llama/weights.ts'
import { destroyParameter, makeParameter, type Parameter } from './parameters.ts'

/** Owns the tensors of an adapter that is trained. */
export class AdapterParameters {
  /** A and B of every adapted projection, then the head's weight. */
  readonly parameters: readonly Parameter[]
  readonly layers: readonly LoraLayer[]
  readonly grads: LoraGradients
  /** The head [1, D], where there is one. */
  readonly score: Parameter | null
  readonly #device: Device
  readonly #adapter: Adapter

  constructor(device: Device, adapter: Adapter, config: LlamaConfig) {
    this.#device = device
    this.#adapter = adapter
    const shapes = shapesOf(config)
    const all: Parameter[] = []
    const add = (name: string, shape: readonly number[], data: Float32Array): Parameter => {
      const parameter = makeParameter(device, name, shape, data)
      all.push(parameter)
      return parameter
    }
    const layers: LoraLayer[] = []
    const grads: LoraGradients[number][] = []
    for (const [l, own] of adapter.layers.entries()) {
      const maps: Partial<Record<ProjectionName, LoraMap>> = {}
      const gradients: Record<string, { a: LoraMap['a']; b: LoraMap['b'] }> = {}
      for (const [name, { a, b, rank, scaling }] of Object.entries(own) as [ProjectionName, LoraWeights][]) {
        const [O, I] = shapes[name]
        const at = `layers.${l}.${moduleOf(name)}`
        const pa = add(`${at}.lora_A`, [rank, I], a)
        const pb = add(`${at}.lora_B`, [rank, O], transposed(b, O))
        maps[name] = { a: pa.value, b: pb.value, scaling }
        gradients[name] = { a: pa.grad, b: pb.grad }
      }
      layers.push(maps)
      grads.push(gradients)
    }
    this.score = adapter.score && add('score', [adapter.score.labels, config.hidden], adapter.score.weight)
    this.parameters = all
    this.layers = layers
    this.grads = grads
  }

  /** Share of the inputs of the branches that training leaves out. */
  get dropout(): number {
    return this.#adapter.config.dropout
  }

  /** Sets all gradients to zero. */
  clear(): void {
    for (const { grad } of this.parameters) this.#device.fill(grad)
  }

  /**
   * Throws where the gradient of a matrix B is zero throughout: the loss does not reach it, and training would go on without it. To
   * be called after the first gradients. Where the loss reads states of first tokens alone (`firstOnly`), these attend to nothing but
   * themselves, and what queries and keys get is zero but for rounding.
   */
  async checkGradients({ firstOnly = false } = {}): Promise<void> {
    for (const { name, grad } of this.parameters) {
      if (!name.endsWith('.lora_B')) continue
      const attends = /\.[qk]_proj\./.test(name)
      if ((firstOnly && attends) || !(await grad.readF32()).some((value) => value !== 0)) {
        const why =
          firstOnly && attends ? ': only first tokens of rows are learned from, which attend to nothing else' : ''
        throw new Error(
          `training: the gradient of ${name} is zero after the first step; the loss does not depend on it${why}`,
        )
      }
    }
  }

  /** The adapter as it is now. */
  async read(): Promise<Adapter> {
    const score: ScoreHead | null = this.score && {
      labels: this.score.value.shape[0]!,
      weight: await this.score.value.readF32(),
    }
    return { ...this.#adapter, layers: await readLayers(this.layers), score }
  }

  destroy(): void {
    for (const parameter of this.parameters) destroyParameter(parameter)
  }
}
