// The reward model end to end on every back end: against float64, alone and in batches, from text and from token ids.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { encodeSafetensors, readTensor, readTensorF32 } from '../src/files/safetensors.ts'
import { memoryFiles } from '../src/files/source.ts'
import { loadFeatureModel, type Progress } from '../src/reward/features.ts'
import { loadRewardModel, type Score } from '../src/reward/model.ts'
import { close, fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { expectedTensors, fixtureModel, fixtureModels } from './fixture.ts'
import {
  characterTokenizer,
  type Expected,
  joined,
  json,
  openRewardReference,
  type QrmSpec,
  qrmFiles,
  qrmTensors,
  randomTokens,
} from './qrm.ts'
import * as reference from './reference/reward.ts'

test.after(closeDevices)

// The promise of the project: scores agree with an independent float64 implementation within 1e-4.
const PARITY = 1e-4

interface Case {
  readonly name: string
  readonly spec: Partial<QrmSpec>
}

const CASES: Case[] = [
  { name: 'one attribute, one level, no hidden gate layer', spec: { objectives: 1, quantiles: 1, depth: 0 } },
  { name: 'the paper', spec: { objectives: 19, quantiles: 19, width: 32, layers: 2, dtype: 'BF16' } },
  {
    name: 'five attributes, mean of f16 heads',
    spec: { objectives: 5, quantiles: 19, transform: false, dtype: 'F16', manifest: { mixture: 'mean' } },
  },
  {
    name: 'tied, head_dim of its own, bias, scaled gate',
    spec: { tied: true, headDim: 8, kvHeads: 4, bias: true, logitScale: -1.5, temperature: 0.5, depth: 1 },
  },
  {
    name: 'odd sizes, one key head',
    spec: { hidden: 19, heads: 3, kvHeads: 1, headDim: 4, objectives: 7, quantiles: 3, width: 13, depth: 2 },
  },
]

/** Tokens and gate position of rows of many lengths; the pattern at the start, inside, at the end, twice, or a position alone. */
const ROWS: { tokens: number[]; position: number; given: boolean }[] = [
  { tokens: randomTokens(1, 1, null), position: 0, given: true },
  { tokens: randomTokens(2, 5, 0), position: 0, given: false },
  { tokens: randomTokens(3, 40, 17), position: 17, given: false },
  { tokens: randomTokens(4, 23, 18), position: 18, given: false },
  { tokens: [...randomTokens(5, 12, 3), ...randomTokens(6, 30, 9)], position: 21, given: false },
  { tokens: randomTokens(7, 100, 50), position: 99, given: true },
  ...Array.from({ length: 12 }, (_, i) => ({ tokens: randomTokens(20 + i, 9 + i, i), position: i, given: false })),
]

const rows = ROWS.map(({ tokens, position, given }) => ({
  input_ids: tokens,
  ...(given && { gate_position: position }),
}))

function largest(values: ArrayLike<number>): number {
  let size = 1
  for (let i = 0; i < values.length; i++) size = Math.max(size, Math.abs(values[i]))
  return size
}

function agree(score: Score, expected: Expected, lambda: number, name: string): void {
  const parity = (actual: ArrayLike<number>, wanted: ArrayLike<number>, what: string) => {
    close(actual, wanted, PARITY * largest(wanted), `${name}: ${what}`)
  }
  parity([score.score], [expected.score], 'score')
  parity(score.quantiles, expected.quantiles, 'quantiles')
  parity([score.expectation], [reference.average(expected.quantiles)], 'expectation')
  parity([score.utility], [reference.utility(expected.quantiles, lambda)], 'utility')
  parity(Object.values(score.gate), expected.gate, 'gate')
  for (const [j, { expectation, quantiles }] of Object.values(score.attributes).entries()) {
    parity(quantiles, expected.attributes[j], `attribute ${j}`)
    parity([expectation], [reference.average(expected.attributes[j])], `attribute ${j} expectation`)
  }
}

async function onEveryDevice(work: (device: Device, name: string) => Promise<void>): Promise<void> {
  const devices = await testDevices()
  assert.ok(devices.length >= 2, 'at least two back ends')
  for (const device of devices) await work(device, device.description)
}

test('random checkpoints agree with float64', async () => {
  for (const [seed, { name, spec }] of CASES.entries()) {
    const files = memoryFiles(name, qrmFiles(seed, spec))
    const compute = await openRewardReference(files)
    const expected = ROWS.map(({ tokens, position }) => compute(tokens, position))
    await onEveryDevice(async (device, description) => {
      const model = await loadRewardModel(device, files)
      for (const lambda of [1, 0.3]) {
        const scores = await model.score(rows, lambda === 1 ? {} : { lambda })
        assert.is(scores.length, ROWS.length)
        for (const [i, score] of scores.entries()) {
          agree(score, expected[i], lambda, `${name} on ${description}, row ${i}`)
          assert.is(score.tokens, ROWS[i].tokens.length)
          assert.equal(Object.keys(score.gate), model.attributes)
          assert.equal(Object.keys(score.attributes), model.attributes)
        }
      }
      await model.destroy()
    })
  }
})

test('features agree with float64', async () => {
  const files = memoryFiles('features', qrmFiles(50, { layers: 2 }))
  const compute = await openRewardReference(files)
  const expected = ROWS.map(({ tokens, position }) => compute(tokens, position))
  await onEveryDevice(async (device, name) => {
    const model = await loadRewardModel(device, files)
    const { embeddings, promptEmbeddings, tokens } = await model.features(rows, { gate: true })
    const D = model.config.hidden
    for (const [i, { hidden, promptHidden }] of expected.entries()) {
      const at = (array: Float32Array) => array.subarray(i * D, (i + 1) * D)
      close(at(embeddings), hidden, PARITY * largest(hidden), `${name}: row ${i}`)
      close(at(promptEmbeddings!), promptHidden, PARITY * largest(promptHidden), `${name}: prompt of row ${i}`)
    }
    assert.equal(
      Array.from(tokens),
      ROWS.map((row) => row.tokens.length),
    )
    const without = await model.features(rows)
    assert.is(without.promptEmbeddings, undefined)
    assert.equal(without.embeddings, embeddings)
    await model.destroy()
  })
})

test('the fixtures agree with what PyTorch gives in float64', async () => {
  const names = await fixtureModels('qrm')
  assert.equal(names, ['debiased', 'mean'])
  for (const name of names) {
    const files = await fixtureModel(`qrm/${name}`)
    const tensors = await expectedTensors(`qrm/${name}`)
    const read = async (key: string) => Array.from(await readTensorF32(tensors.get(key)!))
    const integers = async (key: string) => Array.from(new Int32Array((await readTensor(tensors.get(key)!)).buffer))
    const [attributes, gate, quantiles, score] = await Promise.all(
      ['attributes', 'gate', 'quantiles', 'score'].map(read),
    )
    const hidden = await read('hidden')
    const promptHidden = await read('prompt_hidden')
    const positions = await integers('gate_position')
    const given = await integers('gate_given')
    const N = score.length
    const M = gate.length / N
    const K = quantiles.length / N
    const inputs = await Promise.all(positions.map((_, i) => integers(`tokens_${i}`)))
    const input = inputs.map((tokens, i) => ({ input_ids: tokens, ...(given[i] && { gate_position: positions[i] }) }))
    await onEveryDevice(async (device, description) => {
      const model = await loadRewardModel(device, files)
      assert.equal([model.attributes.length, model.levels.length], [M, K])
      for (const [n, actual] of (await model.score(input)).entries()) {
        const values = attributes.slice(n * M * K, (n + 1) * M * K)
        const expected = {
          hidden: new Float64Array(),
          promptHidden: new Float64Array(),
          attributes: Array.from({ length: M }, (_, j) => values.slice(j * K, (j + 1) * K)),
          gate: gate.slice(n * M, (n + 1) * M),
          quantiles: quantiles.slice(n * K, (n + 1) * K),
          score: score[n],
        }
        agree(actual, expected, 1, `${name} on ${description}, row ${n}`)
      }
      const features = await model.features(input, { gate: true })
      close(features.embeddings, hidden, PARITY * largest(hidden), `${name} on ${description}: hidden`)
      const limit = PARITY * largest(promptHidden)
      close(features.promptEmbeddings!, promptHidden, limit, `${name} on ${description}: prompt hidden`)
      await model.destroy()
    })
  }
})

/** All numbers of a score, in one list. */
function numbers({ score, expectation, utility, quantiles, gate, attributes, tokens }: Score): number[] {
  const parts = Object.values(attributes).flatMap((attribute) => [attribute.expectation, ...attribute.quantiles])
  return [score, expectation, utility, ...quantiles, ...Object.values(gate), ...parts, tokens]
}

test('text is scored by tokenizer, template and bos policy', async () => {
  const device = (await testDevices())[0]
  const ids = (text: string) => [...text].map((character) => ' abcdefghijklmnopqrstuvwxyz\n.?'.indexOf(character))
  const [BOS, START, END, EOT] = [30, 31, 32, 33]
  const pattern = [EOT, START, ...ids('assistant'), END, ...ids('\n\n')]
  const turn = (role: string, content: string) => [START, ...ids(role), END, ...ids('\n\n'), ...ids(content), EOT]
  const user = turn('user', 'why?')
  const tokens = [...user, ...turn('assistant', 'no idea.')]
  for (const [bos, lead] of [
    ['template', [BOS]],
    ['one', [BOS]],
    ['none', []],
  ] as const) {
    const files = { ...qrmFiles(70, { manifest: { gate_pattern: pattern, bos } }), ...characterTokenizer() }
    const model = await loadRewardModel(device, memoryFiles('text', files))
    const expected = [...lead, ...tokens]
    const position = lead.length + user.length - 1
    const pair = { prompt: 'why?', response: 'no idea.' }
    const encoded = model.encode(pair)
    assert.equal([Array.from(encoded.input_ids), encoded.gate_position], [expected, position], bos)
    assert.equal(model.encode(encoded), encoded, 'what encode gives is a row')
    const messages = [
      { role: 'user', content: 'why?' },
      { role: 'assistant', content: 'no idea.' },
    ]
    const given = { input_ids: expected, gate_position: position }
    const [a, b, c] = await model.score([pair, { messages }, given])
    assert.equal(a, b)
    close(numbers(a), numbers(c), 1e-6 * largest(numbers(c)), bos)
    // The last user turn is the one the gate reads.
    const longer = [...messages, { role: 'user', content: 'really?' }, { role: 'assistant', content: 'yes.' }]
    assert.is(model.encode({ messages: longer }).gate_position, expected.length + turn('user', 'really?').length - 1)
    await model.destroy()
  }
})

test('names, levels, lambda come from the manifest, and are the published ones without', async () => {
  const device = (await testDevices())[0]
  const manifest = { attributes: ['a', '__proto__', '2'], levels: [0.1, 0.2, 0.5, 0.6, 0.9], lambda: 0.25 }
  const given = await loadRewardModel(device, memoryFiles('named', qrmFiles(71, { manifest })))
  assert.equal([given.attributes, given.levels, given.lambda], [manifest.attributes, manifest.levels, 0.25])
  const [score] = await given.score([rows[2]])
  assert.equal(Object.keys(score.gate).sort(), ['2', '__proto__', 'a'])
  close([score.utility], [reference.utility(score.quantiles, 0.25)], 1e-12, 'utility at the lambda of the manifest')
  await given.destroy()
  for (const [objectives, first, last] of [
    [19, 'helpsteer-helpfulness', 'code-readability'],
    [5, 'helpsteer-helpfulness', 'helpsteer-verbosity'],
    [2, 'objective_0', 'objective_1'],
  ] as const) {
    const model = await loadRewardModel(device, memoryFiles('unnamed', qrmFiles(72, { objectives })))
    assert.equal(
      [model.attributes.length, model.attributes[0], model.attributes[objectives - 1]],
      [objectives, first, last],
    )
    assert.is(model.lambda, 1)
    await model.destroy()
  }
})

test('rows that cannot be scored are named before anything is computed', async () => {
  const device = (await testDevices())[0]
  const model = await loadRewardModel(device, memoryFiles('rows', qrmFiles(73)))
  let batches = 0
  const options = { onProgress: () => batches++ }
  await fails(
    () => model.score([rows[2], { input_ids: [1, 2, 60] }], options),
    'row 2: input_ids[2] must be a whole number from 0 to 59 (vocab_size), got 60',
  )
  await fails(
    () => model.score([rows[2], { input_ids: [1, 2, 3] }], options),
    'row 2: the gate\'s pattern [57,55,1,56,2] does not occur in the row\'s 3 tokens; give "gate_position", or set "gate_pattern" in pinball.json to what the chat template puts before the response',
  )
  await fails(
    () => model.score([{ prompt: 'a', response: 'b' }]),
    'row 1: rows has no tokenizer.json, so text cannot be encoded; give rows with "input_ids"',
  )
  await fails(() => model.score(rows, { lambda: -1 }), 'utility: lambda must be a finite number of at least 0, got -1')
  assert.is(batches, 0)
  // Features need no gate.
  assert.is((await model.features([{ input_ids: [1, 2, 3] }])).embeddings.length, 24)
  await model.destroy()
  await fails(() => model.score([rows[2]]), 'rows: the model has been destroyed')
  await model.destroy()
})

test('a model that is destroyed during a call finishes its batch, then the call fails', async () => {
  const files = memoryFiles('going', qrmFiles(77, { layers: 2 }))
  await onEveryDevice(async (device) => {
    const model = await loadRewardModel(device, files, { batchTokens: 60 })
    let batches = 0
    const scores = model.score(rows, { onProgress: () => batches++ })
    const failure = fails(() => scores, 'going: the model has been destroyed')
    await model.destroy()
    await failure
    assert.is(batches, 1)
  })
})

test('reports progress and stops on a signal', async () => {
  const device = (await testDevices())[0]
  const model = await loadRewardModel(device, memoryFiles('progress', qrmFiles(74)), { batchTokens: 60 })
  const seen: Progress[] = []
  await model.score(rows, { onProgress: (progress) => seen.push(progress) })
  const totalTokens = ROWS.reduce((sum, row) => sum + row.tokens.length, 0)
  assert.equal(seen.at(-1), { done: rows.length, rows: rows.length, tokens: totalTokens, totalTokens })
  assert.ok(seen.length > 3)
  for (const [i, { done, tokens }] of seen.slice(1).entries()) {
    assert.ok(done > seen[i].done && tokens > seen[i].tokens)
  }
  const controller = new AbortController()
  let batches = 0
  const stopped = model.score(rows, {
    signal: controller.signal,
    onProgress: () => {
      batches++
      controller.abort(new Error('enough'))
    },
  })
  await fails(() => stopped, 'enough')
  assert.is(batches, 1)
  assert.is((await model.score([rows[1]])).length, 1, 'the model works on')
  await model.destroy()
  await fails(
    () => loadRewardModel(device, memoryFiles('budget', qrmFiles(74)), { batchTokens: 0 }),
    'batchTokens must be a whole number of at least 1, got 0',
  )
})

test('a backbone without heads gives features, and a state that overflows is said', async () => {
  const device = (await testDevices())[0]
  const files = qrmFiles(75)
  const whole = await loadRewardModel(device, memoryFiles('whole', files))
  const plain: Record<string, unknown> = JSON.parse(new TextDecoder().decode(files['config.json']))
  for (const key of Object.keys(plain)) if (/^(num_obj|num_qua|gating)/.test(key)) delete plain[key]
  const headless = { ...files, 'config.json': json({ ...plain, architectures: ['LlamaForCausalLM'] }) }
  const model = await loadFeatureModel(device, memoryFiles('headless', headless))
  const { embeddings } = await model.features(rows)
  assert.equal(embeddings, (await whole.features(rows)).embeddings)
  await model.destroy()
  await whole.destroy()
  await fails(
    () => loadRewardModel(device, memoryFiles('headless', headless)),
    'headless/config.json: num_objectives is missing; scoring needs a QRM model directory',
  )

  // Finite weights that overflow: every state above 1.2 becomes an infinity.
  const tensors = qrmTensors(75)
  ;(tensors.get('model.norm.weight')!.data as Float32Array).fill(3e38)
  const large = { ...files, 'model.safetensors': joined(encodeSafetensors([...tensors.values()])) }
  const sick = await loadRewardModel(device, memoryFiles('sick', large))
  const words = "must be finite, got -?(NaN|Infinity) at \\d+; the model's weights hold NaN or overflow$"
  await fails(() => sick.score([rows[2]]), new RegExp(`^row 1: quantile values ${words}`))
  await fails(() => sick.features([rows[2]]), new RegExp(`^row 1: features ${words}`))
  await sick.destroy()
})

test('a model directory is opened once, and closed when the model is destroyed or cannot be made', async () => {
  const device = (await testDevices())[0]
  const watched = (files: Record<string, Uint8Array>) => {
    const { name, open } = memoryFiles('watched', files)
    const opened: string[] = []
    let left = 0
    const watch = async (file: string) => {
      const source = await open(file)
      if (source === null) return null
      opened.push(file)
      left++
      return { ...source, name: source.name, byteLength: source.byteLength, close: async () => void left-- }
    }
    return { files: { name, open: watch }, opened, left: () => left }
  }
  const whole = qrmFiles(78)
  for (const load of [loadRewardModel, loadFeatureModel]) {
    const directory = watched(whole)
    const model = await load(device, directory.files)
    assert.equal(directory.opened.sort(), ['config.json', 'model.safetensors', 'pinball.json'])
    assert.is(directory.left(), 1, 'the weights stay open')
    await model.destroy()
    await model.destroy()
    assert.is(directory.left(), 0)
  }
  const config = JSON.parse(new TextDecoder().decode(whole['config.json'])) as Record<string, unknown>
  for (const change of [{ num_objectives: 17 }, { intermediate_size: 7 }]) {
    const directory = watched({ ...whole, 'config.json': json({ ...config, ...change }) })
    await fails(() => loadRewardModel(device, directory.files), /must be \[/)
    assert.is(directory.left(), 0, 'closed after a failure')
  }
})

test('the fingerprint depends on configuration and weights, not on the device', async () => {
  const files = qrmFiles(76)
  const of = async (changed: Record<string, Uint8Array>, device: Device) => {
    const model = await loadRewardModel(device, memoryFiles('any name', { ...files, ...changed }))
    const result = await model.fingerprint()
    await model.destroy()
    return result
  }
  const devices = await testDevices()
  const plain = await of({}, devices[0])
  assert.match(plain, /^[0-9a-f]{64}$/)
  assert.is(await of({}, devices[devices.length - 1]), plain)
  const weights = files['model.safetensors'].slice()
  weights[weights.length - 5] ^= 1
  assert.is.not(await of({ 'model.safetensors': weights }, devices[0]), plain)
  const manifest = json({ gate_pattern: [57, 55, 1, 56, 2], lambda: 2 })
  assert.is.not(await of({ 'pinball.json': manifest }, devices[0]), plain)
})

test.run()
