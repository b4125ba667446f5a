// The Llama forward pass: against transformers and float64 on every back end, and what it refuses.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadLlama } from '../src/llama/forward.ts'
import { close, fails, tolerance } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import {
  changedModel,
  expectedTensors,
  fixtureModel,
  fixtureModels,
  type ModelChanges,
  readExpectedHidden,
} from './fixture.ts'
import { hiddenOf, openReference } from './hidden.ts'

test.after(closeDevices)

// All limits are shares of the root mean square of a sequence's hidden states, and bound the worst element.
// The promise: 1e-4 of what transformers computes in float32.
const PARITY = 1e-4 * 2 ** 24
// The longest sum of the fixtures is over F = 88. Two layers add the rounding of about ten such sums, of either sign, and the
// fixtures come with as much of their own: float64 is 2.6e-6 away from them, c = 8 gives 4.5e-6.
const LONGEST_SUM = 88

test('the reference agrees with transformers', async () => {
  const names = await fixtureModels('llama')
  assert.equal(names, ['gqa', 'odd', 'sharded', 'tied'])
  for (const name of names) {
    const reference = await openReference(await fixtureModel(`llama/${name}`))
    const { sequences, hidden } = await readExpectedHidden(await expectedTensors(`llama/${name}`))
    assert.equal(
      sequences.map(({ length }) => length),
      [1, 2, 17, 33, 71],
    )
    sequences.forEach((sequence, i) => {
      close(reference(sequence), hidden[i], tolerance(LONGEST_SUM, hidden[i]), `${name}, sequence ${i}`)
    })
  }
})

test('every back end agrees with transformers and with the reference', async () => {
  for (const name of await fixtureModels('llama')) {
    const files = await fixtureModel(`llama/${name}`)
    const reference = await openReference(files)
    const { sequences, hidden } = await readExpectedHidden(await expectedTensors(`llama/${name}`))
    for (const device of await testDevices()) {
      const llama = await loadLlama(device, files)
      const actual = await hiddenOf(llama, sequences)
      llama.destroy()
      sequences.forEach((sequence, i) => {
        const where = `${name}, sequence ${i}, ${device.description}`
        close(actual[i], hidden[i], tolerance(1, hidden[i], PARITY), `${where}, transformers`)
        close(actual[i], reference(sequence), tolerance(LONGEST_SUM, hidden[i]), `${where}, reference`)
      })
    }
  }
})

test('config.json gives the sizes', async () => {
  const [device] = await testDevices()
  const config = async (name: string) => {
    const llama = await loadLlama(device, await fixtureModel(`llama/${name}`))
    llama.destroy()
    return llama.config
  }
  const gqa = await config('gqa')
  assert.equal([gqa.heads, gqa.kvHeads, gqa.headDim, gqa.vocab, gqa.tiedEmbeddings], [8, 2, 8, 97, false])
  assert.equal(gqa.eos, [91, 92, 93])
  const tied = await config('tied')
  assert.equal([tied.heads, tied.kvHeads, tied.headDim, tied.ropeScaling, tied.tiedEmbeddings], [4, 4, 8, null, true])
  const odd = await config('odd')
  assert.equal([odd.headDim, odd.ropeTheta, odd.ropeScaling?.factor, odd.rmsNormEps], [6, 100, 8, 0.01])
  const sharded = await config('sharded')
  assert.equal([sharded.headDim, sharded.hidden, sharded.heads], [24, 40, 4])
})

test('impossible batches are refused', async () => {
  const [device] = await testDevices()
  const llama = await loadLlama(device, await fixtureModel('llama/tied'))
  const run = (...sequences: number[][]) =>
    hiddenOf(
      llama,
      sequences.map((tokens) => Uint32Array.from(tokens)),
    )
  await fails(() => run(), 'llama: no sequences were given')
  await fails(() => run([1], []), 'llama: sequence 1 has no tokens')
  await fails(() => run([1, 97]), 'llama: sequence 0 has token 97 at 1, the vocabulary ends at 96')
  await fails(
    () => run([1], new Array<number>(1025).fill(1)),
    'llama: sequence 1 has 1025 tokens, the model takes 1024; shorten it',
  )
  const states = (positions: number[][], groups?: { members: number[]; common: number }[]) =>
    llama.states([Uint32Array.of(1, 2), Uint32Array.of(1, 3)], positions, groups && { groups })
  await fails(() => states([[0], [2]]), 'llama: sequence 1 has 2 tokens, none at position 2')
  await fails(() => states([[], []]), 'llama: no positions were given')
  const both = { members: [0, 1], common: 2 }
  await fails(() => states([[0]], [both]), 'llama: sequence 0 must begin with the 2 tokens of its group and go on')
  const one = { members: [0], common: 0 }
  for (const groups of [[one], [one, { members: [0, 1], common: 0 }], [one, { members: [2], common: 0 }]])
    await fails(() => states([[0]], groups), /^llama: 2 sequences must be in one group each, got 0/)
  assert.is((await run([1]))[0].length, 32) // and the model still works
  llama.destroy()
})

const LAYER = 'model.layers.1.'
const refusals: [string, ModelChanges, string | RegExp][] = [
  [
    'a missing tensor',
    { tensors: (all) => void all.delete(`${LAYER}mlp.up_proj.weight`) },
    /^llama\/tied: model\.layers\.1\.mlp\.up_proj\.weight is missing/,
  ],
  [
    'a tensor of a third layer',
    {
      tensors: (all) => {
        const name = 'model.layers.2.mlp.up_proj.weight'
        all.set(name, { ...all.get(`${LAYER}mlp.up_proj.weight`)!, name })
      },
    },
    /^llama\/tied: model\.layers\.2\.mlp\.up_proj\.weight is not part of a Llama of 2 layers/,
  ],
  [
    'a tensor of another shape',
    {
      tensors: (all) => {
        const name = `${LAYER}mlp.down_proj.weight`
        all.set(name, { ...all.get(name)!, shape: [44, 32] })
      },
    },
    /model\.layers\.1\.mlp\.down_proj\.weight must be \[32, 44\] by config\.json, found \[44, 32\]/,
  ],
  [
    'a tensor of whole numbers',
    {
      tensors: (all) => {
        const name = `${LAYER}self_attn.q_proj.weight`
        all.set(name, { name, dtype: 'I16', shape: [32, 32], data: new Int16Array(1024) })
      },
    },
    /model\.layers\.1\.self_attn\.q_proj\.weight must be F32, F16 or BF16, found I16/,
  ],
  [
    'a NaN',
    {
      tensors: (all) => {
        const { data } = all.get('model.layers.0.self_attn.k_proj.weight')!
        new DataView(data.buffer, data.byteOffset).setUint16(2 * 7, 0x7e00, true)
      },
    },
    /model\.layers\.0\.self_attn\.k_proj\.weight holds a NaN or an infinity at element 7/,
  ],
  [
    'an infinite embedding',
    {
      tensors: (all) => {
        const { data } = all.get('model.embed_tokens.weight')!
        new DataView(data.buffer, data.byteOffset).setUint16(2 * 3000, 0xfc00, true)
      },
    },
    /model\.embed_tokens\.weight holds a NaN or an infinity at element 3000/,
  ],
  [
    'biases',
    { config: (json) => void Object.assign(json, { attention_bias: true }) },
    /^llama\/tied\/config\.json: attention_bias must be false, got true/,
  ],
  [
    'key heads that do not divide the heads',
    { config: (json) => void Object.assign(json, { num_key_value_heads: 3 }) },
    'llama/tied/config.json: num_attention_heads 4 must be a multiple of num_key_value_heads 3',
  ],
  [
    'another scaling of the rotary embedding',
    { config: (json) => void Object.assign(json, { rope_scaling: { rope_type: 'longrope', factor: 4 } }) },
    /^llama\/tied\/config\.json: rope_scaling: rope_type must be one of default, linear, dynamic, yarn, llama3, got "longrope"/,
  ],
]

for (const [what, changes, message] of refusals) {
  test(`a model directory with ${what} is refused`, async () => {
    const files = await changedModel('llama/tied', changes)
    for (const device of await testDevices()) await fails(() => loadLlama(device, files), message)
  })
}

test('a rewritten fixture is accepted', async () => {
  const [device] = await testDevices()
  ;(await loadLlama(device, await changedModel('llama/tied', {}))).destroy()
})

test.run()
