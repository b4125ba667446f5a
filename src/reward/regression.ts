// The linear quantile heads on the device: the state of the last token to the value of each attribute at each level.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { linear } from '../llama/linear.ts'
import type { Checkpoint } from './checkpoint.ts'

/** Owns the regression layer's weights on a device. */
export class Regression {
  readonly #device: Device
  readonly #weight: Tensor
  readonly #bias: Tensor | null

  /** `width`: D, the size of the state that goes in. */
  constructor(device: Device, { weight, bias }: Checkpoint['regression'], width: number) {
    this.#device = device
    const shape = [weight.length / width, width]
    this.#weight = device.tensor(shape, { label: 'regression_layer.weight', data: weight })
    this.#bias = bias && device.tensor([bias.length], { label: 'regression_layer.bias', data: bias })
  }

  /** Quantile values [N, M K], attribute by attribute, for states x [N, D]; recorded, and set aside to be read. */
  forward(x: Tensor): Promise<Float32Array> {
    const values = this.#device.tensor([x.shape[0], this.#weight.shape[0]], { label: 'quantile values' })
    try {
      linear(this.#device, x, this.#weight, values)
      if (this.#bias) this.#device.run('bias_add', { x: values, bias: this.#bias })
      return values.readF32()
    } finally {
      values.destroy()
    }
  }

  destroy(): void {
    this.#weight.destroy()
    this.#bias?.destroy()
  }
}
