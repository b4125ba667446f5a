// One update of all parameters on the device: gradients added up over micro-batches, clipped by their global norm, AdamW.
//
//   g = g min(1, max_norm / (|g| + 1e-6))
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   w = w (1 - lr decay) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//
// Source: Loshchilov and Hutter 2019; constants and order of operations as in torch.optim.AdamW and clip_grad_norm_. An update is a
// list of kernels over tensors that stay the same, and the host waits for none of them.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { Parameter } from './parameters.ts'

const BETA1 = 0.9
const BETA2 = 0.999
const EPS = 1e-8
/** Of square_sums. */
const BLOCK = 4096

export interface OptimiserSettings {
  /** Of the parameters that decay. */
  readonly weightDecay: number
  /** Largest global norm of the gradients; 0: any. null: the norm is not even computed. */
  readonly maxGradNorm: number | null
}

interface Slot {
  readonly parameter: Parameter
  /** All of them flat, [N]. */
  readonly value: Tensor
  readonly m: Tensor
  readonly v: Tensor
  readonly grad: Tensor
  /** Where the blocks of its squares begin. */
  readonly first: number
}

export class Optimiser {
  readonly #device: Device
  readonly #settings: OptimiserSettings
  readonly #slots: readonly Slot[]
  readonly #sums: Tensor | null
  /** [norm, factor] */
  readonly #clip: Tensor | null
  /** Sums over the micro-batches, where a step has had several. */
  #totals: readonly Tensor[] | null = null
  #added = 0

  constructor(device: Device, parameters: readonly Parameter[], settings: OptimiserSettings) {
    this.#device = device
    this.#settings = settings
    let blocks = 0
    this.#slots = parameters.map((parameter) => {
      const size = [parameter.value.size]
      const flat = (tensor: Tensor) => tensor.view(size)
      const [value, m, v, grad] = [parameter.value, parameter.m, parameter.v, parameter.grad].map(flat)
      const first = blocks
      blocks += Math.ceil(parameter.value.size / BLOCK)
      return { parameter, value, m, v, grad, first }
    })
    const normed = settings.maxGradNorm !== null
    this.#sums = normed ? device.tensor([blocks], { label: 'sums of squared gradients' }) : null
    this.#clip = normed ? device.tensor([2], { label: 'norm of the gradients' }) : null
  }

  /**
   * Takes the gradients that a micro-batch has set into the sums of an update of several; the order of the calls is the order of
   * the sums. An update of one micro-batch, or one whose kernels add by themselves, needs no call.
   */
  add(): void {
    this.#totals ??= this.#slots.map(({ grad, parameter }) =>
      this.#device.tensor(grad.shape, { label: `${parameter.name} gradient, summed` }),
    )
    for (const [i, { grad }] of this.#slots.entries()) {
      const total = this.#totals[i]
      const row = [1, grad.size]
      if (this.#added === 0) this.#device.run('copy', { x: grad, y: total })
      else this.#device.run('add', { x: total.view(row), y: grad.view(row) })
    }
    this.#added++
  }

  /** Records the update; `count` is the number of updates before it. */
  update(lr: number, count: number): void {
    const device = this.#device
    const { weightDecay, maxGradNorm } = this.#settings
    const gradients = this.#slots.map(({ grad }, i) => (this.#added > 0 ? this.#totals![i] : grad))
    if (maxGradNorm !== null) this.#limit(gradients, maxGradNorm)
    const scalars = {
      lr,
      beta1: BETA1,
      beta2: BETA2,
      rest1: 1 - BETA1,
      rest2: 1 - BETA2,
      eps: EPS,
      correction1: 1 - BETA1 ** (count + 1),
      correction2: 1 - BETA2 ** (count + 1),
    }
    for (const [i, { value, m, v, parameter }] of this.#slots.entries()) {
      const weight_decay = parameter.decay ? weightDecay : 0
      device.run('adamw', { param: value, m, v, grad: gradients[i] }, { ...scalars, weight_decay })
    }
    this.#added = 0
  }

  #limit(gradients: readonly Tensor[], max_norm: number): void {
    const device = this.#device
    const [sums, clip] = [this.#sums!, this.#clip!]
    for (const [i, { first }] of this.#slots.entries()) device.run('square_sums', { x: gradients[i], sums }, { first })
    device.run('clip_factor', { sums, clip }, { max_norm })
    if (max_norm > 0) for (const grad of gradients) device.run('clip_scale', { grad, clip })
  }

  /** The global norm of the last update's gradients before clipping; null where it is not computed. */
  async norm(): Promise<number | null> {
    return this.#clip && (await this.#clip.readF32())[0]
  }

  destroy(): void {
    for (const tensor of [this.#sums, this.#clip, ...(this.#totals ?? [])]) tensor?.destroy()
  }
}
