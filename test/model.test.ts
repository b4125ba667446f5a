// Real weights, opt-in: SmolLM2-135M as test/fixtures/smollm2.py converts it, against transformers on both back ends.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { openSafetensors } from '../src/files/safetensors.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { close, tolerance } from './assert.ts'
import { readExpectedHidden } from './fixture.ts'
import { hiddenOf } from './hidden.ts'

// The promise of the project: within 1e-4 of the root mean square of a prompt's hidden states, for every element. Thirty
// layers of float32 rounding on either side take up some of it, and so do the rotary angles, which transformers makes in
// float32.
const PARITY = 1e-4 * 2 ** 24

const folder = process.env.PINBALL_MODELS

if (folder === undefined) {
  console.log(
    'model.test.ts: SKIPPED, it is opt-in: python test/fixtures/smollm2.py MODELS/smollm2, PINBALL_MODELS=MODELS',
  )
  test.skip('SmolLM2-135M agrees with transformers (opt-in, set PINBALL_MODELS)')
} else {
  for (const kind of ['wasm', 'webgpu:software'] as const) {
    test(`SmolLM2-135M agrees with transformers on ${kind}`, async () => {
      const files = await openDirectory(`${folder}/smollm2`)
      const source = await files.open('parity.safetensors')
      if (!source) throw new Error(`${folder}/smollm2: parity.safetensors is missing; make it with smollm2.py`)
      const { sequences, hidden } = await readExpectedHidden((await openSafetensors(source)).tensors)
      assert.ok(sequences.length >= 4)
      const device = await openDevice(kind)
      const llama = await loadLlama(device, files)
      const actual = await hiddenOf(llama, sequences)
      sequences.forEach(({ length }, i) => {
        const rms = tolerance(1, hidden[i], 2 ** 24)
        const worst = actual[i].reduce((most, x, j) => Math.max(most, Math.abs(x - hidden[i][j])), 0) / rms
        console.log(`${kind}: prompt ${i}, ${length} tokens, worst error ${worst.toExponential(1)} of the rms`)
        close(actual[i], hidden[i], tolerance(1, hidden[i], PARITY), `prompt ${i}`)
      })
      llama.destroy()
      await device.destroy()
      await source.close()
    })
  }
}

test.run()
