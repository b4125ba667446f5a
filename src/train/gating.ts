// The gate in training: forward with the statistics of the batch, backward line for line against it.
//
//   h = batch_norm(relu(linear(h)))   for each hidden layer; without the norm, linear has a bias
//   g = softmax((linear(h) + bias) / temperature) * scale
//
// Source: GatingNetwork of the published QRM models, and of ArmoRM (no norm, biases in all maps; its dropout is left out).

import { uniform } from '../data/random.ts'
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { linear } from '../llama/linear.ts'
import type { GateLayer, GateWeights } from '../reward/checkpoint.ts'
import { BATCH_NORM_EPS as EPS, layerNames } from '../reward/layouts.ts'
import type { PairModel } from './pair_task.ts'
import { destroyParameter, makeParameter, type Parameter } from './parameters.ts'

/** Of torch.nn.BatchNorm1d. */
const MOMENTUM = 0.1

export interface GateSettings {
  /** H, units of a hidden layer; 1 or more. */
  readonly hidden: number
  /** Hidden layers; 0 or more. */
  readonly layers: number
  readonly temperature: number
  /** Factor of the softmax; not trained. */
  readonly logitScale: number
  /** After each ReLU: batch norm (QRM), or none and biases in the hidden maps (ArmoRM). */
  readonly norm: 'batch' | 'none'
  readonly seed: number
}

/** Of the paper, and the defaults of the published class. */
export const GATE_DEFAULTS = { hidden: 1024, layers: 3, temperature: 10, logitScale: 1 } as const

interface Layer {
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly norm: Norm | null
  /** After the ReLU [R, H]. */
  readonly z: Tensor
}

interface Norm {
  readonly weight: Parameter
  readonly bias: Parameter
  readonly runningMean: Tensor
  readonly runningVariance: Tensor
  /** Of the batch [H]. */
  readonly mean: Tensor
  readonly variance: Tensor
  /** After the norm [R, H]. */
  readonly y: Tensor
}

/** Owns parameters and buffers of a gate on a device, for batches of up to `rows` rows of `width` columns. */
export class GateModel implements PairModel {
  readonly parameters: Parameter[] = []
  readonly statistics: { readonly name: string; readonly value: Tensor }[] = []
  readonly #device: Device
  readonly #settings: GateSettings
  readonly #layers: Layer[] = []
  readonly #weight: Parameter
  readonly #bias: Parameter
  readonly #logits: Tensor
  readonly #g: Tensor
  readonly #dlogits: Tensor
  /** Gradients of the activations, of one layer and the one below it in turn. */
  readonly #dh: Tensor[]
  readonly #owned: Tensor[] = []
  /** What `forward` has seen last. */
  #x: Tensor | null = null

  /** Weights are drawn as PyTorch does for nn.Linear: uniform within 1 / sqrt(inputs). */
  constructor(device: Device, width: number, outputs: number, rows: number, settings: GateSettings) {
    this.#device = device
    this.#settings = settings
    const { hidden, layers, norm } = settings
    let inputs = width
    const names = layerNames(norm === 'batch' ? 'qrm' : 'armorm', layers)
    for (const { linear: at, norm: after } of names.slice(0, -1)) {
      this.#layers.push({
        weight: this.#map(`${at}.weight`, [hidden, inputs], inputs),
        bias: norm === 'none' ? this.#map(`${at}.bias`, [hidden], inputs) : null,
        z: this.#keep([rows, hidden], 'gate activations'),
        norm: norm === 'batch' ? this.#norm(after, hidden, rows) : null,
      })
      inputs = hidden
    }
    const { linear: last } = names[layers]
    this.#weight = this.#map(`${last}.weight`, [outputs, inputs], inputs)
    this.#bias = this.#map(`${last}.bias`, [outputs], inputs)
    this.#logits = this.#keep([rows, outputs], 'gate logits')
    this.#g = this.#keep([rows, outputs], 'gate')
    this.#dlogits = this.#keep([rows, outputs], 'gradient of gate logits')
    this.#dh = layers === 0 ? [] : [0, 1].map(() => this.#keep([rows, hidden], 'gradient of gate activations'))
  }

  #map(name: string, shape: readonly number[], inputs: number): Parameter {
    const size = shape.reduce((product, length) => product * length, 1)
    const data = uniform(this.#settings.seed, this.parameters.length, size, 1 / Math.sqrt(inputs))
    return this.#parameter(name, shape, data)
  }

  #parameter(name: string, shape: readonly number[], data: Float32Array): Parameter {
    const parameter = makeParameter(this.#device, name, shape, data)
    this.parameters.push(parameter)
    return parameter
  }

  #norm(at: string, width: number, rows: number): Norm {
    const running = (name: string, value: number) => {
      const tensor = this.#keep([width], name, new Float32Array(width).fill(value))
      this.statistics.push({ name, value: tensor })
      return tensor
    }
    return {
      weight: this.#parameter(`${at}.weight`, [width], new Float32Array(width).fill(1)),
      bias: this.#parameter(`${at}.bias`, [width], new Float32Array(width)),
      runningMean: running(`${at}.running_mean`, 0),
      runningVariance: running(`${at}.running_var`, 1),
      mean: this.#keep([width], 'batch mean'),
      variance: this.#keep([width], 'batch variance'),
      y: this.#keep([rows, width], 'gate normalised'),
    }
  }

  #keep(shape: readonly number[], label: string, data?: Float32Array): Tensor {
    const tensor = this.#device.tensor(shape, { label, data })
    this.#owned.push(tensor)
    return tensor
  }

  /** Weights of the attributes [R, M] for prompt states x [R, D]; `training` takes and keeps the statistics of the batch. */
  forward(x: Tensor, training: boolean): Tensor {
    const device = this.#device
    const { hidden, temperature, logitScale: scale } = this.#settings
    const rows = x.shape[0]
    this.#x = x
    let h = x // [R, D]
    for (const { weight, bias, z: z_, norm } of this.#layers) {
      const z = z_.view([rows, hidden])
      linear(device, h, weight.value, z)
      if (bias) device.run('bias_add', { x: z, bias: bias.value })
      device.run('relu', { x: z })
      h = norm ? this.#normalise(z, norm, training) : z // [R, H]
    }
    const outputs = this.#bias.value.size
    const logits = this.#logits.view([rows, outputs])
    linear(device, h, this.#weight.value, logits)
    device.run('bias_add', { x: logits, bias: this.#bias.value })
    const g = this.#g.view([rows, outputs])
    device.run('softmax', { x: logits, y: g }, { temperature, scale })
    return g
  }

  #normalise(z: Tensor, norm: Norm, training: boolean): Tensor {
    const device = this.#device
    const { mean, variance, runningMean, runningVariance } = norm
    const y = norm.y.view(z.shape)
    if (training) {
      device.run('batch_norm_stats', { x: z, mean, variance })
      const running = { running_mean: runningMean, running_variance: runningVariance }
      device.run('batch_norm_update', { mean, variance, ...running }, { momentum: MOMENTUM, rows: z.shape[0] })
    }
    const used = training ? { mean, variance } : { mean: runningMean, variance: runningVariance }
    device.run('batch_norm', { x: z, weight: norm.weight.value, bias: norm.bias.value, ...used, y }, { eps: EPS })
    return y
  }

  /** Gradients of all parameters from dg [R, M], for the batch that `forward` has seen last, in training. */
  backward(dg: Tensor): void {
    const device = this.#device
    const { hidden, temperature, logitScale: scale } = this.#settings
    const x = this.#x as Tensor
    const rows = x.shape[0]
    const outputs = this.#bias.value.size
    const input = (i: number) => {
      if (i < 0) return x
      const { norm, z } = this.#layers[i]
      return (norm ? norm.y : z).view([rows, hidden])
    }
    const last = this.#layers.length - 1
    // g = softmax(logits / temperature) * scale
    const dlogits = this.#dlogits.view([rows, outputs])
    device.run('softmax_grad', { y: this.#g.view([rows, outputs]), dy: dg, dx: dlogits }, { temperature, scale })
    // logits = linear(h) + bias
    device.run('bias_grad', { dy: dlogits, dbias: this.#bias.grad })
    device.run('linear_grad_weight', { dy: dlogits, x: input(last), dweight: this.#weight.grad })
    let [dh, spare] = this.#dh.map((tensor) => tensor.view([rows, hidden])) // [R, H]
    if (last >= 0) device.run('linear_grad_input', { dy: dlogits, weight: this.#weight.value, dx: dh })
    for (let i = last; i >= 0; i--) {
      const { weight, bias, norm, z: z_ } = this.#layers[i]
      const z = z_.view([rows, hidden])
      // h = batch_norm(z)
      if (norm) {
        const { mean, variance } = norm
        const grads = { dweight: norm.weight.grad, dbias: norm.bias.grad }
        const tensors = { x: z, mean, variance, weight: norm.weight.value, dy: dh, dx: spare, ...grads }
        device.run('batch_norm_grad', tensors, { eps: EPS })
        ;[dh, spare] = [spare, dh]
      }
      // z = relu(linear(h) + bias)
      device.run('relu_grad', { y: z, dy: dh })
      if (bias) device.run('bias_grad', { dy: dh, dbias: bias.grad })
      device.run('linear_grad_weight', { dy: dh, x: input(i - 1), dweight: weight.grad })
      if (i === 0) break
      device.run('linear_grad_input', { dy: dh, weight: weight.value, dx: spare })
      ;[dh, spare] = [spare, dh]
    }
  }

  /** The weights as they are now, for a checkpoint. */
  async weights(): Promise<GateWeights> {
    const read = ({ value }: Parameter) => value.readF32()
    const hidden: GateLayer[] = []
    for (const { weight, bias, norm } of this.#layers) {
      hidden.push({
        weight: await read(weight),
        bias: bias && (await read(bias)),
        norm: norm && {
          weight: await read(norm.weight),
          bias: await read(norm.bias),
          mean: await norm.runningMean.readF32(),
          variance: await norm.runningVariance.readF32(),
        },
      })
    }
    const { temperature, logitScale } = this.#settings
    return { temperature, logitScale, hidden, weight: await read(this.#weight), bias: await read(this.#bias) }
  }

  destroy(): void {
    for (const parameter of this.parameters) destroyParameter(parameter)
    for (const tensor of this.#owned) tensor.destroy()
  }
}
