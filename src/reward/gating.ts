// The gate on the device: the state at the end of the prompt to one weight for each attribute.
//
//   h = batch_norm(relu(linear(h)))   for each hidden layer, with running statistics; in ArmoRM h = relu(linear(h) + bias)
//   g = softmax((linear(h) + bias) / temperature) * logit_scale
//
// Source: GatingNetwork of the published QRM models (the norm comes after the ReLU, the hidden maps have no bias), and of ArmoRM.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { linear } from '../llama/linear.ts'
import { passTensors } from '../llama/pass_tensors.ts'
import type { GateWeights } from './checkpoint.ts'
import { BATCH_NORM_EPS } from './layouts.ts'

interface Layer {
  readonly weight: Tensor
  readonly bias: Tensor | null
  readonly norm: {
    readonly weight: Tensor
    readonly bias: Tensor
    readonly mean: Tensor
    readonly variance: Tensor
  } | null
}

/** Owns the gate's weights on a device. */
export class Gate {
  readonly #device: Device
  readonly #temperature: number
  readonly #scale: number
  readonly #hidden: Layer[] = []
  readonly #weight: Tensor
  readonly #bias: Tensor
  readonly #owned: Tensor[] = []

  /** `width`: D, the size of the state that goes in. */
  constructor(device: Device, weights: GateWeights, width: number) {
    this.#device = device
    this.#temperature = weights.temperature
    this.#scale = weights.logitScale
    let inputs = width
    for (const [i, { weight, bias, norm }] of weights.hidden.entries()) {
      const label = (part: string) => `gate layer ${i} ${part}`
      const outputs = weight.length / inputs
      this.#hidden.push({
        weight: this.#keep([outputs, inputs], label('weight'), weight),
        bias: bias && this.#keep([outputs], label('bias'), bias),
        norm: norm && {
          weight: this.#keep([outputs], label('norm weight'), norm.weight),
          bias: this.#keep([outputs], label('norm bias'), norm.bias),
          mean: this.#keep([outputs], label('mean'), norm.mean),
          variance: this.#keep([outputs], label('variance'), norm.variance),
        },
      })
      inputs = outputs
    }
    this.#weight = this.#keep([weights.bias.length, inputs], 'gate weight', weights.weight)
    this.#bias = this.#keep([weights.bias.length], 'gate bias', weights.bias)
  }

  #keep(shape: readonly number[], label: string, data: Float32Array): Tensor {
    const tensor = this.#device.tensor(shape, { label, data })
    this.#owned.push(tensor)
    return tensor
  }

  /** Records weights of the attributes [N, M] for prompt states x [N, D] into g. */
  forward(x: Tensor, g: Tensor): void {
    const device = this.#device
    const rows = x.shape[0]
    const { make, destroy } = passTensors(device)
    try {
      let h = x
      for (const { weight, bias, norm } of this.#hidden) {
        const z = make('gate activations', rows, weight.shape[0]) // [N, H]
        linear(device, h, weight, z)
        if (bias) device.run('bias_add', { x: z, bias })
        device.run('relu', { x: z })
        h = z
        if (norm === null) continue
        const y = make('gate normalised', rows, weight.shape[0]) // [N, H]
        device.run('batch_norm', { x: z, ...norm, y }, { eps: BATCH_NORM_EPS })
        h = y
      }
      const logits = make('gate logits', rows, this.#bias.size) // [N, M]
      linear(device, h, this.#weight, logits)
      device.run('bias_add', { x: logits, bias: this.#bias })
      device.run('softmax', { x: logits, y: g }, { temperature: this.#temperature, scale: this.#scale })
    } finally {
      destroy()
    }
  }

  destroy(): void {
    for (const tensor of this.#owned) tensor.destroy()
  }
}
