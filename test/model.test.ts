// Real weights, opt-in: SmolLM2-135M as test/fixtures/smollm2.py converts it, against transformers on both back ends.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { openSafetensors } from '../src/files/safetensors.ts'
import { loadCausalModel } from '../src/generate/causal_model.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { close } from './assert.ts'
import { fixtureJson, readExpectedHidden } from './fixture.ts'
import { hiddenOf } from './hidden.ts'

// The promise of the project, for each position by itself. Relative is meant for the vector, in both usual norms: the final
// norm makes some channels of SmolLM2 twenty times as large as the others, and they carry the error. What is seen, 2e-5 at
// the worst position of prompt 2 and 2e-6 at most others, is the rounding of float32 sums taken in order: float64 with only
// the linear maps summed that way has the same error there (cosine 0.98). transformers itself is off by 4e-6.
const PARITY = 1e-4

/** The worst relative error over the rows of [T, D], in the Euclidean and in the maximum norm. */
function relativeErrors(actual: Float32Array, expected: Float32Array, D: number): [number, number] {
  assert.is(actual.length, expected.length)
  let euclidean = 0
  let maximum = 0
  for (let begin = 0; begin < expected.length; begin += D) {
    let error = 0
    let size = 0
    let largestError = 0
    let largest = 0
    for (let i = begin; i < begin + D; i++) {
      const e = Math.abs(actual[i] - expected[i])
      // A NaN must not pass for small.
      if (!Number.isFinite(e)) return [Infinity, Infinity]
      error += e * e
      size += expected[i] ** 2
      largestError = Math.max(largestError, e)
      largest = Math.max(largest, Math.abs(expected[i]))
    }
    euclidean = Math.max(euclidean, Math.sqrt(error / size))
    maximum = Math.max(maximum, largestError / largest)
  }
  return [euclidean, maximum]
}

const folder = process.env.PINBALL_MODELS

if (folder === undefined) {
  console.log(
    'model.test.ts: SKIPPED, it is opt-in: python test/fixtures/smollm2.py MODELS/smollm2, PINBALL_MODELS=MODELS',
  )
  test.skip('SmolLM2-135M agrees with transformers (opt-in, set PINBALL_MODELS)')
  test.skip('SmolLM2-135M gives the answers of transformers (opt-in, set PINBALL_MODELS)')
} else {
  test('SmolLM2-135M gives the answers of transformers', async () => {
    type Answer = {
      readonly prompt: string
      readonly text: string
      readonly tokens: number[]
      readonly logprobs: number[]
    }
    const expected = await fixtureJson<Answer[]>('smollm2_texts.json')
    const device = await openDevice('wasm')
    const model = await loadCausalModel(device, await openDirectory(`${folder}/smollm2`))
    const found = await model.generate(expected, { temperature: 0, maxNewTokens: 48 })
    for (const [i, { text, tokens, logprobs }] of expected.entries()) {
      assert.is(found[i].text, text)
      assert.equal([...found[i].tokens], tokens)
      assert.is(found[i].finishReason, 'stop')
      // Logits have the error of the states, which are within PARITY of their norm, and no larger size than 30.
      close(found[i].logprobs, logprobs, 2 * 30 * PARITY, `log-probabilities of answer ${i}`)
    }
    await model.destroy()
    await device.destroy()
  })

  for (const kind of ['wasm', 'webgpu:software'] as const) {
    test(`SmolLM2-135M agrees with transformers on ${kind}`, async () => {
      const files = await openDirectory(`${folder}/smollm2`)
      const source = await files.open('parity.safetensors')
      if (!source) throw new Error(`${folder}/smollm2: parity.safetensors is missing; make it with smollm2.py`)
      const { sequences, hidden } = await readExpectedHidden((await openSafetensors(source)).tensors)
      await source.close()
      assert.ok(sequences.length >= 4)
      const device = await openDevice(kind)
      const llama = await loadLlama(device, files)
      const actual = await hiddenOf(llama, sequences)
      sequences.forEach(({ length }, i) => {
        const [euclidean, maximum] = relativeErrors(actual[i], hidden[i], llama.config.hidden)
        const found = `${kind}: prompt ${i}, ${length} tokens, relative error ${euclidean.toExponential(1)} (Euclidean), ${maximum.toExponential(1)} (maximum)`
        console.log(found)
        assert.ok(euclidean <= PARITY && maximum <= PARITY, found)
      })
      llama.destroy()
      await device.destroy()
    })
  }
}

test.run()
