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

  /** Records quantile values [N, M K], attribute by attribute, for states x [N, D] into y. */
  forward(x: Tensor, y: Tensor): void {
    linear(this.#device, x, this.#weight, y)
    if (this.#bias) this.#device.run('bias_add', { x: y, bias: this.#bias })
  }

  destroy(): void {
    this.#weight.destroy()
    this.#bias?.destroy()
  }
}
