// Decoding with a cache against whole sequences in float64, on every device; and that no sample depends on its company.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Choice, Choose, Continuation, Prompt } from '../src/generate/continuation.ts'
import { type DecoderOptions, openDecoder } from '../src/generate/decoding.ts'
import { close, fails, tolerance } from './assert.ts'
import { BASE, type CausalSpec, causalModel } from './causal_model.ts'
import { closeDevices, testDevices } from './device.ts'
import { random } from './random.ts'

test.after(closeDevices)

const LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65]

function promptsOf(lengths: readonly number[], samples: number, seed: number, vocab = BASE.vocab): Prompt[] {
  const { integers } = random(seed)
  return lengths.map((length, key) => ({ tokens: integers(length, 0, vocab), samples, key }))
}

/** Tokens that depend on prompt, sample and place alone, and ends at different lengths. */
const drawn = (key: number, sample: number, index: number, vocab: number): number =>
  random(1000 * key + 100 * sample + index).integers(1, 0, vocab)[0]!

/** Chooses as `drawn` does and keeps the logits that it was shown, by "prompt sample index". */
function recorder(lengthOf: (prompt: number, sample: number) => number) {
  const shown = new Map<string, Float32Array>()
  const choose: Choose = ({ prompt, sample, tokens, logits }: Choice) => {
    const key = `${prompt} ${sample} ${tokens.length}`
    assert.not.ok(shown.has(key), `${key} is chosen once`)
    shown.set(key, logits.slice())
    // Whoever chooses may change the logits.
    logits.fill(Number.NaN)
    const last = tokens.length + 1 === lengthOf(prompt, sample)
    return {
      token: drawn(prompt, sample, tokens.length, logits.length),
      logprob: -tokens.length,
      finish: last ? 'stop' : null,
    }
  }
  return { shown, choose }
}

/** Every logit within `limit(expected row, keys)` of the reference's for the whole sequence. */
async function compare(
  seed: number,
  changes: Partial<CausalSpec>,
  options: DecoderOptions,
  limit: (row: Float64Array, keys: number, spec: CausalSpec) => number,
): Promise<void> {
  const model = await causalModel(seed, changes)
  const V = model.spec.vocab
  const prompts = promptsOf(LENGTHS, 3, seed, V)
  const lengthOf = (prompt: number, sample: number) => 1 + ((5 * prompt + 3 * sample) % 8)
  for (const device of await testDevices()) {
    const parts = await model.open(device)
    const decoder = openDecoder(parts, { slots: 5, ...options })
    const { shown, choose } = recorder(lengthOf)
    try {
      const results = await decoder.run(prompts, choose, { maxNewTokens: 8 })
      assert.equal(
        results.map(({ prompt, sample }) => [prompt, sample]),
        prompts.flatMap((_, prompt) => [0, 1, 2].map((sample) => [prompt, sample])),
      )
      for (const { prompt, sample, tokens, finishReason } of results) {
        assert.is(tokens.length, lengthOf(prompt, sample))
        assert.is(finishReason, 'stop')
        const whole = [...prompts[prompt].tokens, ...tokens]
        const expected = model.logits(whole)
        for (let index = 0; index < tokens.length; index++) {
          const at = prompts[prompt].tokens.length + index - 1
          const row = expected.subarray(at * V, (at + 1) * V)
          const name = `${device.description}: prompt ${prompt}, sample ${sample}, token ${index}`
          close(shown.get(`${prompt} ${sample} ${index}`)!, row, limit(row, at + 1, model.spec), name)
        }
      }
    } finally {
      parts.destroy()
    }
  }
}

/** The rounding of f32: the longest sum is that of the feed-forward size, or of the scores and values of attention. */
const exact = (row: Float64Array, keys: number, { intermediate, headDim }: CausalSpec): number =>
  tolerance(Math.max(intermediate, 2 * keys + headDim), row)

/**
 * A cache of halves rounds every key and value by up to 2^-11 of itself. In a block's output this is a relative error of that
 * size in the values, and of the same times the spread of the scores in their weights, both at most; blocks add theirs.
 */
const halves = (row: Float64Array, keys: number, spec: CausalSpec): number =>
  exact(row, keys, spec) + tolerance(spec.layers, row) * 2 ** 13

const MODELS: Readonly<Record<string, Partial<CausalSpec>>> = {
  '8 heads on 1, bf16': {},
  '4 heads on 4, f16, output tied': { heads: 4, kvHeads: 4, headDim: 10, storage: 'f16', tied: true },
  '6 heads on 3, f32, adapter': { heads: 6, kvHeads: 3, headDim: 6, storage: 'f32', rank: 3 },
  '4 heads on 2, q8_0': { heads: 4, kvHeads: 2, headDim: 16, storage: 'q8_0' },
  '2 heads on 1 of 70 channels, bf16, adapter': { heads: 2, kvHeads: 1, headDim: 70, rank: 8 },
}

for (const [i, [name, changes]] of Object.entries(MODELS).entries()) {
  test(`at every step, decoding = the whole sequence: ${name}`, () => compare(i, changes, {}, exact))
  test(`with a cache of halves too: ${name}`, () => compare(10 + i, changes, { storage: 'f16' }, halves))
}

test('a cache of halves is not as good as one of singles', () =>
  fails(() => compare(10, {}, { storage: 'f16' }, exact), /elements are off/))

/** Continuations and everything that was shown, as bits. */
async function bitsOf(
  model: Awaited<ReturnType<typeof causalModel>>,
  parts: Awaited<ReturnType<typeof model.open>>,
  prompts: readonly Prompt[],
  options: DecoderOptions,
): Promise<Map<string, Uint32Array>> {
  const { shown, choose } = recorder(() => 9)
  // Random draws follow the prompt's key, and so must what is compared.
  const byKey: Choose = (choice) => choose({ ...choice, prompt: prompts[choice.prompt].key })
  await openDecoder(parts, options).run(prompts, byKey, { maxNewTokens: 9 })
  return new Map([...shown].map(([key, logits]) => [key, new Uint32Array(logits.buffer)]))
}

test('alone = among 16, in any order, in little memory, on any number of threads: the same bits', async () => {
  const model = await causalModel(30, { rank: 4, heads: 4, kvHeads: 2 })
  const prompts = promptsOf([5, 1, 70, 16, 17, 33, 2, 64], 2, 30)
  const onCpu: Map<string, Uint32Array>[] = []
  for (const device of await testDevices()) {
    const parts = await model.open(device)
    const all = await bitsOf(model, parts, prompts, { slots: 16 })
    assert.is(all.size, 8 * 2 * 9)
    if (device.kind === 'wasm') onCpu.push(all)
    const same = (other: Map<string, Uint32Array>, what: string) => {
      for (const [key, bits] of other) assert.equal(bits, all.get(key), `${device.description}: ${what}, ${key}`)
    }
    for (const prompt of prompts.slice(0, 4)) same(await bitsOf(model, parts, [prompt], { slots: 1 }), 'alone')
    for (const slots of [3, 6]) {
      const options = { slots, maxTokens: 2 * 78 }
      same(await bitsOf(model, parts, prompts.slice().reverse(), options), `reversed, ${slots} places`)
    }
    parts.destroy()
  }
  assert.equal(onCpu[1], onCpu[0], 'threads')
})

test('layers that are read at every step give the bits of those that stay', async () => {
  const model = await causalModel(31)
  const prompts = promptsOf([4, 20, 1], 2, 31)
  for (const device of await testDevices()) {
    const results = []
    for (const stream of [false, true]) {
      const parts = await model.open(device, { stream })
      assert.is(parts.model.resident, !stream)
      results.push(await bitsOf(model, parts, prompts, { slots: 4 }))
      parts.destroy()
    }
    assert.equal(results[1], results[0], device.description)
  }
})

const constant: Choose = () => ({ token: 3, logprob: -1, finish: null })

test('a prompt is computed once for all its samples, and a token once', async () => {
  const model = await causalModel(32)
  const prompts = promptsOf([40, 7, 12], 6, 32)
  const [device] = await testDevices()
  const parts = await model.open(device!)
  const computed: number[] = []
  const embedding = {
    ...parts.model.embedding,
    rows: (tokens: Uint32Array, y: Parameters<typeof parts.model.embedding.rows>[1]) => {
      computed.push(tokens.length)
      return parts.model.embedding.rows(tokens, y)
    },
  }
  const counted = { ...parts, model: { ...parts.model, embedding } }
  // The last token of a continuation is chosen and not computed.
  await openDecoder(counted, { slots: 1 }).run(prompts, constant, { maxNewTokens: 5 })
  const steps = computed.filter((tokens) => tokens === 1).length
  assert.is(steps, 3 * 6 * 4)
  assert.equal(
    computed.filter((tokens) => tokens > 1),
    [40, 7, 12],
  )
  computed.length = 0
  // A place that is free is taken at once: 18 samples of 5 tokens in 9 places are two rounds of 4 steps.
  await openDecoder(counted, { slots: 9 }).run(prompts, constant, { maxNewTokens: 5 })
  assert.is(computed.length, 2 * 4 + 2)
  parts.destroy()
})

test('places are taken as they become free, in the order of the prompts', async () => {
  const model = await causalModel(33)
  const [device] = await testDevices()
  const parts = await model.open(device!)
  const prompts = promptsOf([3, 4, 5, 6, 7], 1, 33)
  const lengths = [6, 2, 1, 3, 2]
  const heard: string[] = []
  const choose: Choose = ({ prompt, tokens }) => ({
    token: 1,
    logprob: 0,
    finish: tokens.length + 1 === lengths[prompt] ? 'stop' : null,
  })
  const onToken = (token: { prompt: number; index: number; finish: string | null }) =>
    heard.push(`${token.prompt}.${token.index}${token.finish ? '!' : ''}`)
  await openDecoder(parts, { slots: 2 }).run(prompts, choose, { maxNewTokens: 6, onToken })
  assert.is(heard.join(' '), '0.0 1.0 0.1 1.1! 2.0! 3.0 0.2 3.1 0.3 3.2! 4.0 0.4 4.1! 0.5!')
  parts.destroy()
})

test('a text ends at the length of the model, or at the number of tokens asked for', async () => {
  const model = await causalModel(34, { maxPosition: 20 })
  for (const device of await testDevices()) {
    const parts = await model.open(device)
    const decoder = openDecoder(parts, { slots: 3 })
    const results = await decoder.run(promptsOf([20, 19, 18, 5, 20], 2, 34), constant, { maxNewTokens: 7 })
    assert.equal(
      results.map(({ tokens, logprobs, finishReason }) => [tokens.length, logprobs.length, finishReason]),
      [0, 0, 1, 1, 2, 2, 7, 7, 0, 0].map((length) => [length, length, 'length']),
    )
    assert.equal(await decoder.run([], constant, { maxNewTokens: 7 }), [])
    const full = await decoder.run(promptsOf([20], 1, 34), constant, { maxNewTokens: 7 })
    assert.equal(
      full.map(({ tokens }) => tokens.length),
      [0],
    )
    parts.destroy()
  }
})

test('many prompts go through little memory, and many runs leave nothing', async () => {
  const model = await causalModel(35)
  const prompts = promptsOf(
    Array.from({ length: 40 }, (_, i) => 1 + ((7 * i) % 30)),
    3,
    35,
  )
  const lengthOf = (prompt: number, sample: number) => 1 + ((prompt + 4 * sample) % 10)
  for (const device of await testDevices()) {
    const parts = await model.open(device)
    const before = device.statistics()
    const small = openDecoder(parts, { slots: 4, maxTokens: 45 })
    let most = 0
    const run = async () => {
      const { choose } = recorder(lengthOf)
      const results = await small.run(prompts, choose, {
        maxNewTokens: 10,
        onToken: () => {
          most = Math.max(most, device.statistics().bytes)
        },
      })
      assert.is(results.length, 120)
      for (const { prompt, sample, tokens } of results) assert.is(tokens.length, lengthOf(prompt, sample))
    }
    await run()
    assert.ok(most - before.bytes < small.cacheBytes(45) + 2 ** 20, `${most - before.bytes} bytes`)
    assert.is(device.statistics().tensors, before.tensors)
    const after = device.statistics()
    for (let i = 0; i < 50; i++) {
      await openDecoder(parts, { slots: 4 }).run(prompts.slice(0, 6), constant, { maxNewTokens: 3 })
      assert.is(device.statistics().tensors, before.tensors)
      assert.is(device.statistics().bytes, before.bytes)
      if (i === 5) Object.assign(after, device.statistics())
    }
    assert.is(device.statistics().buffers, after.buffers, 'buffers')
    assert.is(device.statistics().bindGroups, after.bindGroups, 'bind groups')
    parts.destroy()
  }
})

test('whatever ends a run early frees its memory', async () => {
  const model = await causalModel(36)
  const prompts = promptsOf([5, 6, 7], 2, 36)
  for (const device of await testDevices()) {
    const parts = await model.open(device)
    const before = device.statistics().tensors
    const decoder = openDecoder(parts, { slots: 2 })
    const run = (choose: Choose, signal?: AbortSignal) => decoder.run(prompts, choose, { maxNewTokens: 6, signal })
    let calls = 0
    const broken: Choose = (choice) => {
      calls++
      if (calls === 9) throw new Error('the template is out of reach')
      return constant(choice)
    }
    await fails(() => run(broken), 'the template is out of reach')
    assert.is(device.statistics().tensors, before)
    const wrong: Choose = () => ({ token: 97, logprob: 0, finish: null })
    await fails(() => run(wrong), 'decoder: prompt 0, sample 0: the token that is chosen must be from 0 to 96, got 97')
    assert.is(device.statistics().tensors, before)
    const abort = new AbortController()
    calls = 0
    const stopping: Choose = (choice) => {
      calls++
      if (calls === 7) abort.abort(new Error('enough'))
      return constant(choice)
    }
    await fails(() => run(stopping, abort.signal), 'enough')
    assert.ok(calls <= 8, `${calls} calls`)
    await fails(() => run(constant, abort.signal), 'enough')
    assert.is(device.statistics().tensors, before)
    const results: Continuation[] = await run(constant)
    assert.is(results.length, 6)
    decoder.destroy()
    await fails(() => run(constant), 'decoder: cannot run, the decoder has been destroyed')
    parts.destroy()
  }
})

test('what cannot be decoded is refused before anything is computed', async () => {
  const model = await causalModel(37)
  const [device] = await testDevices()
  const parts = await model.open(device!)
  const calls = device!.statistics().calls
  const [prompt] = promptsOf([30], 1, 37)
  const run = (prompts: Prompt[], options: DecoderOptions = {}, maxNewTokens = 8) =>
    openDecoder(parts, options).run(prompts, constant, { maxNewTokens })
  const refused: [() => unknown, string][] = [
    [() => run([{ ...prompt, tokens: new Uint32Array() }]), 'decoder: prompt 0 has no tokens'],
    [
      () => run([prompt, { ...prompt, tokens: Uint32Array.of(1, 97) }]),
      'decoder: prompt 1 has token 97 at 1, the vocabulary ends at 96',
    ],
    [
      () => run([{ ...prompt, tokens: new Uint32Array(257) }]),
      'decoder: prompt 0 has 257 tokens, the model takes 256; shorten it',
    ],
    [() => run([{ ...prompt, samples: 0 }]), 'decoder: prompt 0 must ask for a whole number of samples from 1, got 0'],
    [
      () => run([prompt], { maxTokens: 36 }),
      'decoder: prompt 0 has 30 tokens, which take 37 places of the cache with 8 new ones; it has 36 (maxTokens)',
    ],
    [() => run([prompt], {}, 0), 'decoder: maxNewTokens must be a whole number from 1 to 2147483648, got 0'],
    [() => run([prompt], { slots: 0 }), 'decoder: slots must be a whole number from 1 to 1024, got 0'],
    [() => run([prompt], { storage: 'bf16' as 'f16' }), 'decoder: storage must be "f32" or "f16", got "bf16"'],
  ]
  for (const [work, message] of refused) await fails(async () => work(), message)
  assert.is(device!.statistics().calls, calls)
  await run([prompt], { maxTokens: 37 })
  parts.destroy()
})

test('a cache that the device cannot hold is refused with its size', async () => {
  const model = await causalModel(38, { layers: 9, heads: 8, kvHeads: 8, headDim: 256, maxPosition: 2 ** 20 })
  const [device] = await testDevices()
  const parts = await model.open(device!)
  const before = device!.statistics().tensors
  const prompts = promptsOf([2 ** 15, 2 ** 15], 1, 38)
  await fails(
    () => openDecoder(parts, { maxTokens: 2 ** 16 }).run(prompts, constant, { maxNewTokens: 9 }),
    /^decoder: a cache of 65536 tokens takes 9216 MiB \(9 layers, f32\); lower maxTokens, slots or the number of new tokens, or store it as f16: /,
  )
  assert.is(device!.statistics().tensors, before)
  parts.destroy()
})

test.run()
