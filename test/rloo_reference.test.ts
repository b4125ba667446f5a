// Steps of RLOO with fixed samples and rewards against PyTorch and PEFT on every back end.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { moduleOf, type ProjectionName } from '../src/llama/weights.ts'
import { closeDevices, testDevices } from './device.ts'
import { RLOO_CASES, rlooCase, runFixed } from './rloo_fixture.ts'

const devices = await testDevices()

/** Largest difference over the largest value. */
function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.is(actual.length, expected.length)
  let [worst, scale] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]))
    scale = Math.max(scale, Math.abs(expected[i]))
  }
  return worst / scale
}

for (const device of devices) {
  for (const name of RLOO_CASES) {
    test(`${name}: loss, norm, KL, advantages and the adapter are PyTorch's on ${device.description}`, async () => {
      const { model, settings, completions, expected } = await rlooCase(name)
      const { entries, steps, adapter } = await runFixed(device, model, settings, [completions])
      const [entry] = entries
      const [{ advantages }] = steps
      const wanted = (key: string) => Array.from<number>(expected.get(key)!)
      assert.ok(
        relative(advantages, wanted('advantages')) < 1e-4,
        `advantages ${relative(advantages, wanted('advantages'))}`,
      )
      const scale = wanted('advantages').reduce((sum, value) => sum + Math.abs(value), 0) / advantages.length
      const losses = wanted('losses')
      const norms = wanted('norms')
      const last = settings.updates - 1
      // The loss of the first update is 0 or near it, as a mean of what cancels; its scale is that of an advantage.
      const found = [[entry.loss, losses[0]], ...(last > 0 ? [[entry['loss/last'], losses[last]]] : [])]
      const weight = settings.aggregation === 'constant' ? settings.maxNewTokens : 1
      for (const [loss, expectedLoss] of found)
        assert.ok(Math.abs(loss - expectedLoss) < (1e-4 * scale) / weight, `loss ${loss}, PyTorch ${expectedLoss}`)
      assert.ok(Math.abs(entry.grad_norm / norms[0] - 1) < 1e-4, `norm ${entry.grad_norm}, PyTorch ${norms[0]}`)
      if (last > 0) {
        const [own, theirs] = [entry['grad_norm/last'], norms[last]]
        assert.ok(Math.abs(own - theirs) <= 1e-3 * theirs, `last norm ${own}, PyTorch ${theirs}`)
        const clipped = wanted('clipped')
        const share = clipped.slice(1).reduce((sum, value) => sum + value, 0) / last
        assert.ok(share > 0, 'clipping is active')
        assert.ok(
          Math.abs(entry['clip_ratio/region_mean'] - share) < 1e-9,
          `${entry['clip_ratio/region_mean']}, ${share}`,
        )
      }
      assert.ok(Math.abs(entry.entropy / wanted('entropy')[0] - 1) < 1e-5, `entropy ${entry.entropy}`)
      if (settings.klEstimator === 'k1') {
        const kl = wanted('kl').reduce((sum, value) => sum + value, 0) / completions.length
        assert.ok(
          Math.abs(entry.kl_seq - kl) < 1e-4 * Math.max(...wanted('kl').map(Math.abs)),
          `kl ${entry.kl_seq}, ${kl}`,
        )
      }
      for (const [l, layer] of adapter.layers.entries()) {
        for (const [projection, { a, b }] of Object.entries(layer)) {
          const at = `final.base_model.model.model.layers.${l}.${moduleOf(projection as ProjectionName)}`
          for (const [part, values] of [
            ['A', a],
            ['B', b],
          ] as const) {
            const error = relative(values, wanted(`${at}.lora_${part}.weight`))
            assert.ok(error < 1e-4, `${at}.lora_${part}: ${error}`)
          }
        }
      }
    })
  }
}

test('devices close', closeDevices)

test.run()
