// A Bradley-Terry head: one linear map of the last token's state to a score, without a constant.
//
//   s = x weight^T;   margin = s(chosen) - s(rejected)
//
// Source: the head `score` of LlamaForSequenceClassification. Its scores are as the gate's weights to the trainer, with rewards
// 1 and -1, so that it needs no code of its own but this.

import { uniform } from '../data/random.ts'
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { linear } from '../llama/linear.ts'
import type { PairModel } from './pair_task.ts'
import { destroyParameter, makeParameter, type Parameter } from './parameters.ts'

/** Owns the head on a device, for batches of up to `rows` rows of `width` columns. */
export class ScoreModel implements PairModel {
  readonly parameters: readonly Parameter[]
  readonly statistics = []
  readonly #device: Device
  readonly #weight: Parameter
  readonly #scores: Tensor
  #x: Tensor | null = null

  constructor(device: Device, width: number, rows: number, { seed }: { readonly seed: number }) {
    this.#device = device
    this.#weight = makeParameter(device, 'score.weight', [1, width], uniform(seed, 0, width, 1 / Math.sqrt(width)))
    this.parameters = [this.#weight]
    this.#scores = device.tensor([rows, 1], { label: 'scores' })
  }

  /** Scores [R, 1] of states x [R, D]. */
  forward(x: Tensor): Tensor {
    this.#x = x
    const scores = this.#scores.view([x.shape[0], 1])
    linear(this.#device, x, this.#weight.value, scores)
    return scores
  }

  /** Gradient of the weight from those of the scores [R, 1]. */
  backward(dscores: Tensor): void {
    this.#device.run('linear_grad_weight', { dy: dscores, x: this.#x as Tensor, dweight: this.#weight.grad })
  }

  /** The weight [D] as it is now. */
  weights(): Promise<Float32Array> {
    return this.#weight.value.readF32()
  }

  destroy(): void {
    destroyParameter(this.#weight)
    this.#scores.destroy()
  }
}
