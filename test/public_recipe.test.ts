// The whole recipe with what `pinball-rm` exports and nothing else, in memory, as a page does it: from rows to a reward model.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  assemble,
  CALIBRATION_FILE,
  type Checkpoint,
  calibrate,
  type Device,
  type DeviceKind,
  debiasHeads,
  type EpochResult,
  encodeCalibration,
  encodeHeads,
  evaluateCalibration,
  evaluatePairs,
  evenLevels,
  expectation,
  fitHeads,
  fitRidge,
  type HeadsFile,
  loadFeatureModel,
  loadHeads,
  loadRewardModel,
  type ModelFiles,
  makeFeatures,
  measurePairs,
  memoryFiles,
  memorySource,
  memoryStore,
  openDevice,
  openPairs,
  openRatings,
  type PairEvaluation,
  type PairFile,
  quantilesOfFeatures,
  type RatingFile,
  ratingsProblem,
  readCheckpoint,
  readFeatureRows,
  readHeadsFile,
  readUncalibrated,
  recordsOf,
  type Source,
  type Store,
  scorePairFeatures,
  stateRows,
  trainBradleyTerry,
  trainGate,
} from '../src/index.ts'
import { close, fails } from './assert.ts'
import { fixture } from './fixture.ts'
import { random } from './random.ts'

/** The GPU under test: the software adapter, which every machine has, or with PINBALL_GPU=webgpu the hardware one. */
const GPU = (globalThis.process?.env.PINBALL_GPU ?? 'webgpu:software') as DeviceKind
const NANO = ['config.json', 'pinball.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors']
const ATTRIBUTES = ['pleasant', 'wordy']
const LEVELS = evenLevels(4)
const [RATED, HELD_OUT, PAIRS] = [32, 16, 16]
const GATE = { hidden: 8, layers: 1, batch: 8, epochs: 4, validation: 0.25, lr: 1e-2, logEvery: 1, seed: 3 }

// Rows of ratings and pairs: a response is as pleasant as its words are, and the more words the wordier.

const draw = random(2026)
const pick = <T>(from: readonly T[]): T => from[draw.integers(1, 0, from.length)[0]]
const TOPICS = ['the film', 'your day', 'the soup', 'this book', 'my plan', 'the hotel', 'our trip', 'the music']
const WORDS = {
  good: ['wonderful', 'kind', 'clever', 'lovely', 'helpful', 'happy'],
  bad: ['awful', 'stupid', 'boring', 'rude', 'useless', 'sad'],
}

interface Text {
  readonly prompt: string
  readonly response: string
}

function write(share: number, topic = pick(TOPICS)): Text {
  const words = Array.from({ length: 2 + draw.integers(1, 0, 6)[0] }, () =>
    pick(draw.next() < share ? WORDS.good : WORDS.bad),
  )
  return { prompt: `What do you think of ${topic}?`, response: `It is ${words.join(' and ')}.` }
}

function rate(count: number): Record<string, unknown>[] {
  return Array.from({ length: count }, (_, i) => {
    const share = draw.next()
    const text = write(share)
    const words = text.response.split(' and ').length
    const [noise, other] = draw.normal(2, { deviation: 0.05 })
    // Pleasant responses get a bonus for every word, which debiasing takes out again.
    return { ...text, pleasant: share + 0.15 * words + noise, wordy: words + other, id: `rated ${i}` }
  })
}

const RATINGS = rate(RATED)
const UNSEEN = rate(HELD_OUT)
const PREFERENCES = Array.from({ length: PAIRS }, (_, i) => {
  const topic = TOPICS[i % TOPICS.length]
  const [chosen, rejected] = [write(0.9, topic), write(0.1, topic)]
  const prompt = `${chosen.prompt} (${i})`
  return { prompt, chosen: chosen.response, rejected: rejected.response, subset: i % 2 ? 'odd' : 'even', id: i }
})

// The steps of the recipe

const nano: { files: Promise<ModelFiles> | null } = { files: null }

/** The embedded model, as files in memory. */
function backbone(): Promise<ModelFiles> {
  const read = async (file: string) => [file, await fixture(`../../models/nano/${file}`)] as const
  nano.files ??= Promise.all(NANO.map(read)).then((files) => memoryFiles('nano', Object.fromEntries(files)))
  return nano.files
}

async function source(store: Store, file: string): Promise<Source> {
  const found = await store.open(file)
  assert.ok(found, `${store.name}/${file}`)
  return found as Source
}

interface Features {
  readonly device: Device
  readonly ratings: RatingFile
  readonly unseen: RatingFile
  readonly pairs: PairFile
  readonly states: Awaited<ReturnType<typeof stateRows>>
}

const made = new Map<DeviceKind, Promise<Features>>()

/** Features on a device, made once; both stay until the tests have ended. */
function featuresOn(kind: DeviceKind): Promise<Features> {
  const found = made.get(kind) ?? openDevice(kind).then(makeAll)
  made.set(kind, found)
  return found
}

test.after(async () => {
  for (const one of made.values()) await (await one).device.destroy()
})

async function makeAll(device: Device): Promise<Features> {
  const store = memoryStore('features')
  const model = await loadFeatureModel(device, await backbone())
  try {
    for (const [file, rows] of [
      ['ratings.safetensors', RATINGS],
      ['unseen.safetensors', UNSEEN],
      ['pairs.safetensors', PREFERENCES],
    ] as const) {
      const choice = rows === PREFERENCES ? {} : { labels: ATTRIBUTES }
      const chosen = await readFeatureRows(recordsOf(rows), choice)
      const { manifest } = await makeFeatures(model, chosen, { store, file })
      assert.equal([manifest.rows.length, manifest.columns], [rows.length, 256])
      assert.is(manifest.fingerprint, await model.fingerprint())
    }
  } finally {
    await model.destroy()
  }
  return {
    device,
    ratings: await openRatings([await source(store, 'ratings.safetensors')]),
    unseen: await openRatings([await source(store, 'unseen.safetensors')]),
    pairs: await openPairs([await source(store, 'pairs.safetensors')]),
    states: await stateRows([await source(store, 'pairs.safetensors')]),
  }
}

/** Heads as a file of theirs gives them back. */
async function throughFile(name: string, heads: Parameters<typeof encodeHeads>[0]): Promise<HeadsFile> {
  const bytes = new Uint8Array(await new Blob(encodeHeads(heads) as BlobPart[]).arrayBuffer())
  return readHeadsFile(memorySource(name, bytes))
}

async function contents(store: Store): Promise<Record<string, Uint8Array>> {
  const files: Record<string, Uint8Array> = {}
  for (const name of await store.list()) {
    const file = await source(store, name)
    files[name] = await file.read(0, file.byteLength)
  }
  return files
}

/** Trains in one go, and in another store stops half-way and goes on: both must hold the same bits. Gives the second. */
async function trainTwice(device: Device, pairs: PairFile, heads: HeadsFile): Promise<Store> {
  const whole = memoryStore('reward')
  const { steps } = await trainGate(device, pairs, heads, { ...GATE, store: whole })
  const cut = memoryStore('reward')
  const stop = new AbortController()
  const seen: number[] = []
  await fails(
    () =>
      trainGate(device, pairs, heads, {
        ...{ ...GATE, store: cut, signal: stop.signal },
        onProgress({ step }) {
          seen.push(step)
          if (step >= steps / 2) stop.abort(new Error('stopped half-way'))
        },
      }),
    'stopped half-way',
  )
  assert.ok(seen[seen.length - 1] < steps, 'stopped before the end')
  assert.not((await cut.list()).includes('config.json'), 'what is not finished is no model')
  const again: number[] = []
  const onProgress = ({ step }: { step: number }) => again.push(step)
  const done = await trainGate(device, pairs, heads, { ...GATE, store: cut, onProgress })
  assert.is(again[0], seen[seen.length - 1], 'goes on where it was')
  assert.is(done.finished, false)
  const [one, other] = [await contents(whole), await contents(cut)]
  assert.equal(Object.keys(other), Object.keys(one))
  for (const [name, bytes] of Object.entries(one)) assert.equal(other[name], bytes, `${name} has other bits`)
  assert.ok((await trainGate(device, pairs, heads, { ...GATE, store: cut })).finished, 'nothing is left to do')
  return cut
}

/** Calibrates the heads of a store on ratings, and checks that every level covers what it promises on them. */
async function calibrateIn(device: Device, store: Store, ratings: RatingFile): Promise<void> {
  const before = await quantilesOfFeatures(device, await readCheckpoint(store), ratings)
  const found = await calibrate(device, await readUncalibrated(store), ratings)
  await store.write(CALIBRATION_FILE, encodeCalibration(found))
  const after = await quantilesOfFeatures(device, await readCheckpoint(store), ratings)
  assert.equal([before.calibrated, after.calibrated], [false, true])
  const shortfall = ({ attributes }: typeof after) =>
    attributes.map(({ quantiles, rated }) =>
      LEVELS.map((level, k) => {
        const covered = Array.from(rated.ratings).filter((y, i) => y <= quantiles[i * LEVELS.length + k]).length
        return level - covered / HELD_OUT
      }),
    )
  // The ceil((n + 1) t)-th smallest difference is added, so that at least that many of the n ratings are covered.
  const most = LEVELS.map((level) => level - Math.ceil((HELD_OUT + 1) * level - 1e-9) / HELD_OUT)
  for (const of of shortfall(after))
    for (const [k, short] of of.entries()) assert.ok(short <= most[k] + 1e-12, `level ${LEVELS[k]}: ${short}`)
  assert.ok(
    shortfall(before)
      .flat()
      .some((short, k) => short > most[k % LEVELS.length]),
    'it was needed',
  )
  const { attributes } = evaluateCalibration(after)
  assert.equal(Object.keys(attributes), ATTRIBUTES)
  for (const { items, coverage } of Object.values(attributes)) {
    assert.is(items, HELD_OUT)
    for (const [k, level] of LEVELS.entries()) assert.ok(coverage[k] >= level, `level ${level}: ${coverage[k]}`)
  }
}

const points = ({ questions }: PairEvaluation): number[] => questions.flatMap(({ scores }) => [...scores])

/** A model of texts made of heads and backbone ranks the pairs as the heads rank their features, to the bit. Gives the accuracy. */
async function checkAssembled(device: Device, heads: ModelFiles, pairs: PairFile): Promise<number> {
  const whole = memoryStore('whole')
  await assemble(await backbone(), heads, whole)
  const model = await loadRewardModel(device, whole)
  const alone = await loadHeads(device, heads)
  try {
    const found = await evaluatePairs(model, [...recordsOf(PREFERENCES)])
    const expected = measurePairs(await scorePairFeatures(device, alone, pairs), 'pairs')
    close(points(found), points(expected), 0, 'scores of texts, and of their features')
    assert.equal(found.result, expected.result)
    assert.is(found.questions.length, PAIRS)
    const texts = PREFERENCES.slice(0, 4).map(({ prompt, chosen }) => ({ prompt, response: chosen }))
    const scores = await model.score(texts)
    close(
      scores.map((score) => score.score),
      found.questions.slice(0, 4).map((question) => question.scores[0]),
      0,
      'scores of rows, and of pairs',
    )
    for (const { quantiles, expectation: mean } of scores) close([expectation(quantiles)], [mean], 1e-12, 'expectation')
    assert.is(found.suite, 'pairs')
    return found.suite === 'pairs' ? found.result.accuracy : 0
  } finally {
    alone.destroy()
    await model.destroy()
  }
}

/** Scores of a linear head are dot products: float64 says how near. */
async function checkLinear({ regression }: Checkpoint, device: Device, store: Store, pairs: PairFile): Promise<void> {
  const heads = await loadHeads(device, store)
  const { questions } = await scorePairFeatures(device, heads, pairs)
  heads.destroy()
  const rows = Array.from({ length: PAIRS }, (_, i) => i)
  const states = await pairs.readSides(rows)
  for (const [at, score] of questions.flatMap(({ scores }) => [...scores]).entries()) {
    const products = Array.from(regression.weight, (w, d) => w * states[at * pairs.columns + d])
    const sum = products.reduce((all, product) => all + product, 0)
    const size = products.reduce((all, product) => all + Math.abs(product), 0)
    // A sum of D products in f32 is off by at most D roundings of the sum of their sizes, in whatever order.
    close([score], [sum], pairs.columns * 2 ** -24 * size, `score ${at}`)
  }
}

/** Of scores that say nothing the loss is log 2. */
function checkFalls(epochs: readonly EpochResult[]): void {
  const [first, last] = [epochs[0].loss!, epochs[epochs.length - 1].loss!]
  assert.ok(last < first && last < Math.LN2, `loss ${first} to ${last}`)
}

for (const kind of ['wasm', GPU] as const) {
  test(`the recipe, in memory, on ${kind}`, async () => {
    const { device, ratings, unseen, pairs, states } = await featuresOn(kind)
    assert.equal([ratings.attributes, pairs.pairs, states.rows], [ATTRIBUTES, PAIRS, 2 * PAIRS])
    const problem = ratingsProblem(ratings)

    const fitted = await fitHeads(problem, { levels: LEVELS, alpha: 0.01, intercept: true })
    assert.is(fitted.fits.length, ATTRIBUTES.length * LEVELS.length)
    for (const { status, gap } of fitted.fits) assert.ok(status === 'optimal' && gap <= 1e-4, `${status}, gap ${gap}`)
    const heads = await throughFile('heads', fitted)
    assert.equal([heads.weight, heads.bias, heads.levels], [fitted.weight, fitted.bias, LEVELS])
    assert.is(heads.fingerprint, pairs.fingerprint)

    const found = await debiasHeads(device, heads, states, { attribute: 'wordy', threshold: 0.05 })
    assert.ok(found.before[0] > 0.05 && found.after[0] <= 0.05, `${found.before[0]} to ${found.after[0]}`)
    const debiased = await throughFile('debiased', found.heads)
    assert.equal(debiased.transform, found.transform)

    const reward = await trainTwice(device, pairs, debiased)
    await calibrateIn(device, reward, unseen)
    const accuracy = await checkAssembled(device, reward, pairs)
    assert.ok(accuracy > 0.7, `accuracy ${accuracy}`)
  })
}

test('the baselines, in memory: ridge and Bradley-Terry', async () => {
  const { device, ratings, pairs } = await featuresOn('wasm')
  const ridge = await fitRidge(ratingsProblem(ratings), { alphas: [0.1, 1, 10], refit: 'all' })
  const heads = await throughFile('ridge', ridge)
  assert.equal([heads.attributes, heads.levels, heads.weight], [ATTRIBUTES, null, ridge.weight])
  for (const { attribute, alpha, path } of ridge.fits) {
    const best = path.reduce((one, other) => (other.mse < one.mse ? other : one))
    assert.is(alpha, best.alpha, attribute)
  }
  const armo = memoryStore('armo')
  const gate = await trainGate(device, pairs, heads, { ...GATE, epochs: 12, lr: 3e-2, store: armo })
  assert.is(gate.checkpoint.layout, 'armorm')
  checkFalls(gate.epochs)
  assert.ok((await checkAssembled(device, armo, pairs)) > 0.7)

  const linear = memoryStore('linear')
  const options = { store: linear, batch: 8, epochs: 6, lr: 1e-2, validation: 0, seed: 1 }
  const { checkpoint, epochs } = await trainBradleyTerry(device, pairs, options)
  checkFalls(epochs)
  await checkLinear(checkpoint, device, linear, pairs)
  assert.ok((await checkAssembled(device, linear, pairs)) > 0.7)
})

test.run()
