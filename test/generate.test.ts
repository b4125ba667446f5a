// A loaded causal model: what it writes is what a slow loop over whole sequences writes, and no text depends on its company.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDirectory } from '../src/files/disk.ts'
import { closeTensors, openModelTensors } from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles } from '../src/files/source.ts'
import { loadCausalModel } from '../src/generate/causal_model.ts'
import { chooser, continuationText } from '../src/generate/chooser.ts'
import { type Continuation, GENERATION_DEFAULTS, type GenerationSettings } from '../src/generate/continuation.ts'
import { type FinishedOptions, finishedTexts } from '../src/generate/finished.ts'
import { keyPrompts, type PromptRow } from '../src/generate/prompt_rows.ts'
import type { GeneratedPiece, GeneratedText } from '../src/generate/texts.ts'
import { newAdapterConfig } from '../src/llama/adapter_config.ts'
import { encodeAdapter } from '../src/llama/adapter_files.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { generationDocument } from '../src/report/generation.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { close, fails, tolerance } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles } from './lora_fixture.ts'
import { random } from './random.ts'

test.after(closeDevices)

const VOCAB = 131
/** The longest sum of a linear map. */
const LONGEST = 64
const bytes = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** 131 tokens, 512 positions, an output layer of its own, no tokenizer; EOS is 2. */
const tiny = (more: Record<string, Uint8Array> = {}): ModelFiles =>
  memoryFiles('tiny', { ...folderFiles('untied/model'), ...more })
const tinyAdapter = memoryFiles('tiny adapter', folderFiles('untied/adapter'))
const nano = () => openDirectory('models/nano')

function rowsOf(lengths: readonly number[], seed: number): { input_ids: Uint32Array }[] {
  const { integers } = random(seed)
  return lengths.map((length) => ({ input_ids: integers(length, 0, VOCAB) }))
}

/** Writes by whole sequences: no cache, one sample after the other. Also gives the largest size of a row of logits. */
async function slowly(
  device: Device,
  files: ModelFiles,
  adapter: ModelFiles | null,
  rows: readonly { readonly input_ids: Uint32Array }[],
  samples: number,
  settings: GenerationSettings,
): Promise<{ texts: Continuation[]; limit: number }> {
  const llama = await loadLlama(device, files, { adapter })
  const tensors = await openModelTensors(files)
  const output = await openOutputLayer(device, llama.config, outputInfo(tensors, llama.config)!)
  const prompts = keyPrompts(
    rows.map(({ input_ids }) => input_ids),
    samples,
  )
  const choose = chooser(settings, prompts)
  const texts: Continuation[] = []
  let limit = 0
  for (const [prompt, { tokens: before }] of prompts.entries()) {
    for (let sample = 0; sample < samples; sample++) {
      const tokens: number[] = []
      const logprobs: number[] = []
      let finishReason: Continuation['finishReason'] | null = null
      while (finishReason === null) {
        const whole = Uint32Array.from([...before, ...tokens])
        const states = await llama.states([whole], [[whole.length - 1]])
        const logits = await output.logits(states.x)
        states.destroy()
        limit = Math.max(limit, tolerance(LONGEST, logits))
        const { token, logprob, finish } = choose({ prompt, sample, tokens, logits })
        tokens.push(token)
        logprobs.push(logprob)
        finishReason = finish ?? (tokens.length === settings.maxNewTokens ? 'length' : null)
      }
      texts.push({
        ...{ prompt, sample, tokens: Uint32Array.from(tokens), logprobs: Float32Array.from(logprobs) },
        finishReason,
      })
    }
  }
  output.destroy()
  llama.destroy()
  await closeTensors(tensors)
  return { texts, limit }
}

const WAYS: Readonly<Record<string, Partial<GenerationSettings>>> = {
  greedy: { temperature: 0 },
  'greedy, with a penalty': { temperature: 0, repetitionPenalty: 1.3, minNewTokens: 4 },
  drawn: { seed: 5 },
  'drawn, truncated': { temperature: 0.7, topK: 20, topP: 0.9, minP: 0.05, repetitionPenalty: 1.2, seed: 6 },
}

test('cached decoding writes what a loop over whole sequences writes, token for token', async () => {
  const rows = rowsOf([1, 17, 5, 40], 1)
  let stops = 0
  for (const device of await testDevices()) {
    for (const adapter of [null, tinyAdapter]) {
      const model = await loadCausalModel(device, tiny(), { adapter })
      for (const [way, own] of Object.entries(WAYS)) {
        // Many stop tokens, so that texts end at different places.
        const stopTokens = [2, ...Array.from({ length: 12 }, (_, i) => 10 * i + 7)]
        const settings = { ...GENERATION_DEFAULTS, stopTokens, maxNewTokens: 12, ...own }
        const { texts, limit } = await slowly(device, tiny(), adapter, rows, 2, settings)
        const found = await model.generate(rows, { ...settings, samples: 2, slots: 3 })
        const name = `${device.description}, ${adapter ? 'adapter' : 'base'}, ${way}`
        for (const [i, { prompt, sample, tokens, logprobs, finishReason }] of texts.entries()) {
          const text = found[i]
          assert.equal([text.row, text.sample, text.finishReason], [prompt, sample, finishReason], name)
          assert.equal([...text.tokens], [...tokens], `${name}, row ${prompt}, sample ${sample}`)
          // Two logits of either way, penalised and divided by the temperature.
          const { temperature, repetitionPenalty } = settings
          close(text.logprobs, logprobs, (4 * limit * repetitionPenalty) / (temperature || 1), name)
          if (finishReason === 'stop') stops++
        }
        assert.is(found.length, texts.length)
      }
      await model.destroy()
    }
  }
  assert.ok(stops > 20, `${stops} texts end by a stop token`)
})

const bitsOf = ({ tokens, logprobs, text, finishReason }: GeneratedText) =>
  JSON.stringify([[...tokens], [...new Uint32Array(logprobs.buffer)], text, finishReason])

test('neither the number of samples at a time, nor order, nor company, nor the number of samples changes a text', async () => {
  const rows = rowsOf([3, 1, 30, 8, 8, 19], 2)
  const settings = { seed: 9, maxNewTokens: 10, stopTokens: [2, 40, 41, 42, 43] }
  const files = tiny()
  for (const device of await testDevices()) {
    const model = await loadCausalModel(device, files, { adapter: tinyAdapter })
    const usual = await model.generate(rows, { ...settings, samples: 4 })
    const bits = new Map(usual.map((text) => [`${text.row} ${text.sample}`, bitsOf(text)]))
    // Samples are different ones, and so are other seeds.
    assert.is(new Set(bits.values()).size, 24)
    const check = (texts: readonly GeneratedText[], rowOf: (row: number) => number, what: string) => {
      for (const text of texts) {
        const name = `${rowOf(text.row)} ${text.sample}`
        assert.is(bitsOf(text), bits.get(name), `${device.description}: ${what}, ${name}`)
      }
    }
    for (const slots of [1, 5, 24])
      check(await model.generate(rows, { ...settings, samples: 4, slots }), (row) => row, `${slots} at a time`)
    const reversed = rows.slice().reverse()
    check(await model.generate(reversed, { ...settings, samples: 2 }), (row) => 5 - row, 'reversed, fewer samples')
    check(await model.generate([rows[2]], { ...settings, samples: 1 }), () => 2, 'alone')
    const other = await model.generate(rows, { ...settings, seed: 10 })
    assert.not(other.some((text) => bitsOf(text) === bits.get(`${text.row} 0`)))
    // Equal rows are drawn for by themselves.
    const twins = await model.generate([rows[0], rows[0]], settings)
    assert.is(bitsOf(twins[0]), bits.get('0 0'))
    assert.is.not(bitsOf(twins[1]), bits.get('0 0'))
    await model.destroy()
  }
})

test('texts, conversations and tokens of the embedded model: pieces join to the texts, and ids come back', async () => {
  const [device] = await testDevices()
  const model = await loadCausalModel(device, await nano(), { adapter: await openDirectory('models/nano-sft') })
  const messages = [{ role: 'user', content: 'How was the film?' }] as const
  const rows: PromptRow[] = [
    { prompt: 'How was the film?', id: 'first' },
    { messages, id: 7 },
    { input_ids: [45, 34, 12] },
    { prompt: 'Once upon a time' },
  ]
  const settings = { maxNewTokens: 24, samples: 2, seed: 3, stopStrings: ['e'], minNewTokens: 5 }
  const pieces: GeneratedPiece[] = []
  const texts = await model.generate(rows, { ...settings, onPiece: (piece) => pieces.push(piece) })
  assert.equal(
    texts.map(({ row, sample, id }) => [row, sample, id ?? null]),
    [0, 1, 2, 3].flatMap((row) => [0, 1].map((sample) => [row, sample, ['first', 7, null, null][row]])),
  )
  assert.equal(texts[2].prompt, messages)
  assert.equal(texts[4].prompt, [45, 34, 12])
  assert.equal([...texts[4].promptTokens], [45, 34, 12])
  // A text and a conversation of that one turn are the same tokens.
  assert.equal([...texts[0].promptTokens], [...texts[2].promptTokens])
  const all = { ...GENERATION_DEFAULTS, ...settings, stopTokens: model.stopTokens }
  for (const text of texts) {
    const own = pieces.filter(({ row, sample }) => row === text.row && sample === text.sample)
    assert.is(own.map((piece) => piece.text).join(''), text.text)
    assert.is(text.text, continuationText(text, all, model.tokenizer!))
    assert.equal(
      own.map(({ token }) => token),
      [...text.tokens],
    )
    assert.equal(
      own.map(({ result }) => result !== null),
      own.map((_, i) => i === own.length - 1),
    )
    assert.equal(own.at(-1)!.result, text)
  }
  const yielded: GeneratedPiece[] = []
  for await (const piece of model.stream(rows, settings)) yielded.push(piece)
  assert.equal(yielded, pieces)
  const [plain] = await model.generate([rows[0]], { plain: true, maxNewTokens: 1 })
  assert.equal([...plain.promptTokens], [...model.tokenizer!.encode('How was the film?', { framed: true })])
  await model.destroy()
})

test('stop tokens are those of the model unless others are given', async () => {
  const [device] = await testDevices()
  const [row] = rowsOf([6], 4)
  const bare = await loadCausalModel(device, tiny())
  assert.equal(bare.stopTokens, [2])
  const [free] = await bare.generate([row], { temperature: 0, maxNewTokens: 6 })
  await bare.destroy()
  const stop = free.tokens[3]
  const first = free.tokens.indexOf(stop)
  const files = tiny({ 'generation_config.json': bytes({ eos_token_id: [stop], temperature: 0.1 }) })
  const model = await loadCausalModel(device, files)
  assert.equal(model.stopTokens, [stop])
  const [ended] = await model.generate([row], { temperature: 0, maxNewTokens: 6 })
  assert.equal([[...ended.tokens], ended.finishReason], [[...free.tokens.slice(0, first + 1)], 'stop'])
  const [other] = await model.generate([row], { temperature: 0, maxNewTokens: 6, stopTokens: [2] })
  assert.equal([...other.tokens], [...free.tokens])
  const [later] = await model.generate([row], { temperature: 0, maxNewTokens: 6, minNewTokens: 6 })
  assert.not([...later.tokens.slice(0, 5)].includes(stop))
  await model.destroy()
})

test("a prompt of the model's length has an empty text, and one nearly as long a short one", async () => {
  const [device] = await testDevices()
  const model = await loadCausalModel(device, tiny())
  const rows = rowsOf([512, 511, 4], 5)
  const pieces: GeneratedPiece[] = []
  const settings = { maxNewTokens: 3, samples: 2, stopTokens: [] }
  const texts = await model.generate(rows, { ...settings, onPiece: (piece) => pieces.push(piece) })
  assert.equal(
    texts.map(({ tokens, finishReason }) => [tokens.length, finishReason]),
    [0, 0, 1, 1, 3, 3].map((length) => [length, 'length']),
  )
  assert.equal(
    pieces.slice(0, 2).map(({ row, sample, token, logprob, text }) => [row, sample, token, logprob, text]),
    [0, 1].map((sample) => [0, sample, null, null, '']),
  )
  assert.is(pieces.filter(({ result }) => result).length, 6)
  await model.destroy()
})

test('what is broken off or aborted has yielded what was finished, and the model goes on', async () => {
  const model0 = tiny()
  const rows = rowsOf([3, 4, 5], 6)
  for (const device of await testDevices()) {
    const model = await loadCausalModel(device, model0)
    const tensors = device.statistics().tensors
    const settings = { maxNewTokens: 30, stopTokens: [], samples: 2, slots: 2 }
    const whole = await model.generate(rows, settings)
    let count = 0
    for await (const _ of model.stream(rows, settings)) if (++count === 7) break
    assert.is(device.statistics().tensors, tensors)
    const abort = new AbortController()
    const finished: GeneratedText[] = []
    const reason = new Error('enough')
    await fails(async () => {
      for await (const { result } of model.stream(rows, { ...settings, signal: abort.signal })) {
        if (result) finished.push(result)
        if (finished.length === 2) abort.abort(reason)
      }
    }, 'enough')
    assert.ok(finished.length >= 2 && finished.length < 6)
    for (const text of finished) assert.is(bitsOf(text), bitsOf(whole[2 * text.row + text.sample]))
    await fails(() => model.generate(rows, { ...settings, signal: abort.signal }), 'enough')
    assert.equal((await model.generate(rows, settings)).map(bitsOf), whole.map(bitsOf))
    assert.is(device.statistics().tensors, tensors)
    await model.destroy()
  }
})

test('texts that are finished come in order, and an abort leaves those that there are', async () => {
  const [device] = await testDevices()
  const model = await loadCausalModel(device, tiny())
  const rows = rowsOf([3, 4, 5], 6)
  const settings = { maxNewTokens: 30, samples: 2, slots: 3, stopTokens: Array.from({ length: 6 }, (_, i) => 20 * i) }
  const whole = await model.generate(rows, settings)
  // The first is not the first to end.
  assert.ok(whole[0].tokens.length > Math.min(...whole.slice(1, 3).map(({ tokens }) => tokens.length)))
  const heard: GeneratedText[] = []
  const counts: number[][] = []
  const onText = (text: GeneratedText) => void heard.push(text)
  const onPiece: FinishedOptions['onPiece'] = (_, done, tokens) => void counts.push([done, tokens])
  assert.equal(await finishedTexts(model, rows, { ...settings, onText, onPiece }), whole)
  assert.equal(heard, whole)
  assert.equal(counts.at(-1), [6, whole.reduce((sum, { tokens }) => sum + tokens.length, 0)])
  const abort = new AbortController()
  heard.length = 0
  const some = await finishedTexts(model, rows, {
    ...{ ...settings, onText, signal: abort.signal },
    onPiece: (_, done) => void (done === 3 && abort.abort()),
  })
  assert.ok(some.length >= 3 && some.length < 6)
  assert.equal(heard, some)
  assert.equal(
    some,
    whole.filter((text) => some.some(({ row, sample }) => row === text.row && sample === text.sample)),
  )
  const writing = { model, device, interrupted: true }
  assert.equal(generationDocument(writing, some.slice(0, 1)), {
    ...{ model: 'tiny', device: device.name, interrupted: true },
    results: [
      {
        ...{ id: some[0].row, prompt: [...rows[some[0].row].input_ids], text: null, tokens: [...some[0].tokens] },
        ...{ logprobs: [...some[0].logprobs], finish_reason: some[0].finishReason },
      },
    ],
  })
  await fails(
    () => finishedTexts(model, rows, { ...settings, onText: () => Promise.reject(new Error('full')) }),
    'full',
  )
  await model.destroy()
})

test('an adapter is swapped while calls go on, which keep theirs; calls take turns', async () => {
  const [device] = await testDevices()
  const before = device.statistics().tensors
  const model = await loadCausalModel(device, tiny())
  const rows = rowsOf([9, 2], 7)
  const settings = { maxNewTokens: 8, stopTokens: [], seed: 1 }
  const bits = (texts: readonly GeneratedText[]) => texts.map(bitsOf).join()
  const base = bits(await model.generate(rows, settings))
  const running = [model.generate(rows, settings)]
  await model.adapter(tinyAdapter)
  running.push(model.generate(rows, settings))
  await model.adapter(null)
  running.push(model.generate(rows, settings))
  const [first, second, third] = (await Promise.all(running)).map(bits)
  assert.equal([first, third], [base, base])
  assert.is.not(second, base)
  const adapted = await loadCausalModel(device, tiny(), { adapter: tinyAdapter })
  assert.is(bits(await adapted.generate(rows, settings)), second)
  await adapted.destroy()
  const late = model.generate(rows, settings)
  await model.destroy()
  assert.is(bits(await late), base)
  await fails(() => model.generate(rows, settings), 'tiny: the model has been destroyed')
  assert.is(device.statistics().tensors, before)
})

test('what cannot be continued is refused with the name of its row', async () => {
  const [device] = await testDevices()
  const before = device.statistics().tensors
  const model = await loadCausalModel(device, tiny())
  const [row] = rowsOf([4], 8)
  const long = { input_ids: new Uint32Array(513) }
  const config = newAdapterConfig({ task: 'SEQ_CLS', rank: 1, alpha: 1, targets: ['q_proj'], dropout: 0, base: 'tiny' })
  const written = encodeAdapter(startAdapter(config, model.config, 1), model.config)
  const parts = written.map(({ file, chunks }) => [file, new Uint8Array(Buffer.concat(chunks))] as const)
  const classifier = memoryFiles('scored', Object.fromEntries(parts))
  const cases: [() => unknown, string | RegExp][] = [
    [() => model.generate([row, { prompt: 'x' }]), /^row 2: tiny has no tokenizer\.json/],
    [() => model.generate([row, long]), /^row 2: the prompt has 513 tokens, the model takes 512/],
    [() => model.generate([long], { nameRow: () => 'a.jsonl:3' }), /^a\.jsonl:3: the prompt has 513 tokens/],
    [() => model.generate([row], { samples: 0 }), 'generate: samples must be a whole number of at least 1, got 0'],
    [() => model.generate([row], { temperature: -1 }), /^generate: temperature must be a number of at least 0/],
    [() => model.generate([row], { stopStrings: ['x'] }), /stop strings need a tokenizer/],
    [
      () => model.generate([row, row], { stopTokens: Array.from({ length: VOCAB }, (_, i) => i), minNewTokens: 1 }),
      'row 1: generate: no token can be drawn: all that the model knows are stop tokens',
    ],
    [() => model.adapter(classifier), 'scored: is an adapter of a classifier; generation needs a causal one'],
  ]
  for (const [work, message] of cases) await fails(work, message)
  assert.is((await model.generate([row], { maxNewTokens: 1 })).length, 1)
  await model.destroy()
  const headless = memoryFiles('headless', {
    ...folderFiles('untied/model'),
    'model.safetensors': await withoutHead(folderFiles('untied/model')['model.safetensors']),
  })
  await fails(
    () => loadCausalModel(device, headless),
    'headless: lm_head.weight is missing; generation needs a causal model',
  )
  assert.is(device.statistics().tensors, before)
})

/** The bytes of a safetensors file without lm_head.weight: its name in the header is another one. */
async function withoutHead(file: Uint8Array): Promise<Uint8Array> {
  const text = Buffer.from(file).toString('latin1')
  const renamed = text.replace('"lm_head.weight"', '"xm_head.weight"')
  assert.is.not(renamed, text)
  return new Uint8Array(Buffer.from(renamed, 'latin1'))
}

test.run()
