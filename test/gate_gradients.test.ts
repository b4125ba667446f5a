// The gradients of the gate by finite differences: the loss in float64, differenced in every parameter, against what training computes.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { GateModel, type GateSettings } from '../src/train/gating.ts'
import { close } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { random } from './random.ts'

const [B, D, H, M] = [12, 7, 5, 3]
const MARGIN_SCALE = 3
const STEP = 1e-5

type Parameters = Map<string, Float64Array>

const draw = random(41)
const x = draw.normal(B * D)
const rewards = draw.normal(B * M)

/** The mean Bradley-Terry loss of the batch, by the formulas of gating.ts and pair_task.ts, in float64. */
function loss(parameters: Parameters, { layers, norm, temperature, logitScale }: GateSettings): number {
  const linear = (h: number[][], name: string) => {
    const weight = parameters.get(`${name}.weight`)!
    const bias = parameters.get(`${name}.bias`)
    const [inputs, outputs] = [h[0].length, weight.length / h[0].length]
    return h.map((row) =>
      Array.from({ length: outputs }, (_, o) => {
        let sum = bias?.[o] ?? 0
        for (let d = 0; d < inputs; d++) sum += row[d] * weight[o * inputs + d]
        return sum
      }),
    )
  }
  let h = Array.from({ length: B }, (_, b) => Array.from(x.subarray(b * D, (b + 1) * D)))
  const step = norm === 'batch' ? 3 : 1
  for (let i = 0; i < layers; i++) {
    h = linear(h, `gating.layers.${step * i}`).map((row) => row.map((value) => Math.max(value, 0)))
    if (norm === 'none') continue
    const scale = parameters.get(`gating.layers.${3 * i + 2}.weight`)!
    const shift = parameters.get(`gating.layers.${3 * i + 2}.bias`)!
    const mean = scale.map((_, d) => h.reduce((sum, row) => sum + row[d], 0) / B)
    const variance = scale.map((_, d) => h.reduce((sum, row) => sum + (row[d] - mean[d]) ** 2, 0) / B)
    h = h.map((row) => row.map((v, d) => ((v - mean[d]) / Math.sqrt(variance[d] + 1e-5)) * scale[d] + shift[d]))
  }
  const logits = linear(h, `gating.layers.${step * layers}`)
  let total = 0
  for (const [b, row] of logits.entries()) {
    const powers = row.map((value) => Math.exp(value / temperature))
    const sum = powers.reduce((a, value) => a + value, 0)
    const margin = MARGIN_SCALE * powers.reduce((a, p, m) => a + (p / sum) * logitScale * rewards[b * M + m], 0)
    total += Math.log1p(Math.exp(-margin)) / B
  }
  return total
}

/** Central differences of the loss in every element of a parameter. */
function differences(parameters: Parameters, name: string, settings: GateSettings): Float64Array {
  const values = parameters.get(name)!
  return values.map((value, i) => {
    const at = (moved: number) => {
      values[i] = moved
      const result = loss(parameters, settings)
      values[i] = value
      return result
    }
    return (at(value + STEP) - at(value - STEP)) / (2 * STEP)
  })
}

/** The gradients of all parameters on a device, and the parameters. */
async function gradients(device: Device, settings: GateSettings) {
  const model = new GateModel(device, D, M, B, settings)
  const tensors = {
    x: device.tensor([B, D], { data: x }),
    r: device.tensor([B, M], { data: rewards }),
    margin: device.tensor([B]),
    loss: device.tensor([B]),
    dg: device.tensor([B, M]),
  }
  try {
    // Norms whose weights are all 1 and 0 would hide mistakes in their gradients.
    for (const { name, value } of model.parameters) {
      if (/layers\.[25]\.(weight|bias)$/.test(name) && settings.norm === 'batch') {
        const values = (await value.readF32()).map((v, i) => v + 0.3 * Math.sin(i + name.length))
        value.write(values)
      }
    }
    const { x: states, ...rest } = tensors
    const g = model.forward(states, true)
    device.run('bradley_terry', { g, ...rest }, { margin_scale: MARGIN_SCALE })
    model.backward(tensors.dg)
    const parameters: Parameters = new Map()
    const found = new Map<string, Float32Array>()
    for (const { name, value, grad } of model.parameters) {
      parameters.set(name, Float64Array.from(await value.readF32()))
      found.set(name, await grad.readF32())
    }
    const losses = await tensors.loss.readF32()
    return { parameters, found, loss: losses.reduce((sum, value) => sum + value, 0) / B }
  } finally {
    for (const tensor of Object.values(tensors)) tensor.destroy()
    model.destroy()
  }
}

for (const norm of ['batch', 'none'] as const) {
  test(`gradients of a gate with norm ${norm} are those of finite differences, on every device`, async () => {
    const settings: GateSettings = { hidden: H, layers: 2, temperature: 0.7, logitScale: 1.3, norm, seed: 5 }
    for (const device of await testDevices()) {
      const { parameters, found, loss: mean } = await gradients(device, settings)
      assert.ok(Math.abs(mean - loss(parameters, settings)) < 1e-6, `loss on ${device.description}`)
      assert.is(found.size, norm === 'batch' ? 3 + 4 + 1 : 6)
      for (const [name, values] of found) {
        const expected = differences(parameters, name, settings)
        const size = Math.sqrt(expected.reduce((sum, value) => sum + value ** 2, 0) / expected.length)
        // Differences are good to h^2 and to 1e-16 / h, near 1e-10; f32 sums of at most B terms through three layers, and norms
        // whose smallest deviation enlarges errors, to some tens of 2^-24.
        close(values, expected, 1e-9 + 64 * 2 ** -24 * Math.sqrt(B) * size, `${name} on ${device.description}`)
        assert.ok(size > 1e-6, `${name} has a gradient`)
      }
    }
  })
}

test('devices close', closeDevices)

test.run()
