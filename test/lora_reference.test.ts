// The float64 reference of LoRA training against PyTorch and PEFT, and against central differences of itself.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { LORA_CASES, loraCase } from './lora_fixture.ts'
import { random } from './random.ts'
import { llamaLoss } from './reference/llama_grad.ts'

/** Largest difference over the largest value. PyTorch makes the angles of rotary positions in float32: 1e-6 and not 1e-15. */
function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.is(actual.length, expected.length)
  let [worst, scale] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]))
    scale = Math.max(scale, Math.abs(expected[i]))
  }
  return worst / scale
}

for (const name of LORA_CASES) {
  test(`${name}: loss, log-probabilities and gradients are PyTorch's`, async () => {
    const { model, batch, expected } = await loraCase(name)
    const { loss, grads, logprobs } = llamaLoss(model, batch)
    assert.ok(Math.abs(loss / expected.get('loss')![0] - 1) < 1e-6, `loss ${loss}, PyTorch ${expected.get('loss')}`)
    for (const [i, own] of logprobs.entries()) assert.ok(relative(own, expected.get(`logprobs_${i}`)!) < 1e-6)
    assert.equal([...grads.keys()].sort(), [...model.adapter.keys()].sort())
    for (const [key, grad] of grads) {
      const error = relative(grad, expected.get(`grad.base_model.model.${key}`)!)
      assert.ok(error < 5e-6, `${key}: ${error}`)
    }
  })
}

test('gradients are central differences of the loss', async () => {
  const { model, batch } = await loraCase('odd')
  const short = batch.slice(0, 2)
  const { grads } = llamaLoss(model, short)
  const generator = random(5)
  for (const [key, grad] of grads) {
    // One random direction a tensor: a sum over all its elements.
    const direction = generator.normal(grad.length)
    const along = (step: number) => {
      const moved = Float64Array.from(model.adapter.get(key)!, (value, i) => value + step * direction[i])
      return llamaLoss({ ...model, adapter: new Map([...model.adapter, [key, moved]]) }, short).loss
    }
    const difference = (along(1e-4) - along(-1e-4)) / 2e-4
    const slope = grad.reduce((sum, value, i) => sum + value * direction[i], 0)
    // Second-order error of a step of 1e-4, and 1e-16 / 1e-4 of rounding.
    assert.ok(Math.abs(difference - slope) < 1e-6 * Math.max(1, Math.abs(slope)), `${key}: ${difference}, ${slope}`)
  }
})

test.run()
