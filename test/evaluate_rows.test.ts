// Evaluations as a library, in memory: rows and features of pairs, questions, ratings; a page does the same.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import {
  comparePairs,
  evaluateCalibration,
  evaluatePairs,
  loadHeads,
  loadRewardModel,
  measurePairs,
  openPairs,
  openRatings,
  quantilesOfFeatures,
  quantilesOfRows,
  type RewardModel,
  ratingsByAttribute,
  readCheckpoint,
  readRatedRows,
  readRecords,
  scorePairFeatures,
} from '../src/index.ts'
import { close, fails } from './assert.ts'
import { lines, qrm, tensor } from './command.ts'

let device: Device
let model: RewardModel

test.before(async () => {
  device = await openDevice('wasm', { threads: 1 })
  model = await loadRewardModel(device, await openDirectory(qrm), { rewards: 'raw' })
})

test.after(async () => {
  await model.destroy()
  await device.destroy()
})

/** The records of rows, as they come from a file. */
async function records(...rows: unknown[]) {
  const all = []
  const source = memorySource('rows', new TextEncoder().encode(lines(...rows)))
  for await (const record of readRecords(source)) all.push(record)
  return all
}

const ids = (...input_ids: number[]) => ({ input_ids, gate_position: 1 })
const A = ids(5, 6, 7, 8)
const B = ids(5, 6, 9)

/** Scores of rows, by the model itself. */
const scoresOf = async (...rows: { input_ids: number[] }[]) => (await model.score(rows)).map(({ score }) => score)

test('pairs: the scores of the model, their accuracy, and the same pair turned', async () => {
  const rows = await records({ chosen: A, rejected: B, id: 7 }, { chosen: B, rejected: A }, { chosen: A, rejected: A })
  const [a, b] = await scoresOf(A, B)
  const { suite, questions, result } = await evaluatePairs(model, rows)
  assert.is(suite, 'pairs')
  close(
    questions.flatMap(({ scores }) => scores),
    [a, b, b, a, a, a],
    1e-6,
    'scores',
  )
  assert.equal(
    questions.map(({ where, id, right }) => [where, id, right]),
    [
      ['rows line 1', '7', 1],
      ['rows line 2', null, 1],
      ['rows line 3', null, 1],
    ],
  )
  assert.is((result as { accuracy: number }).accuracy, 1 / 3)
  const found = { questions, skipped: [] }
  assert.equal(comparePairs(found, found).difference, 0)
  const turned = { questions: questions.map((one) => ({ ...one, scores: [...one.scores].reverse() })), skipped: [] }
  const { firstOnly, secondOnly } = comparePairs(found, turned)
  assert.equal([firstOnly, secondOnly], [1, 1])
  await fails(
    async () => comparePairs(found, { questions: questions.slice(1), skipped: [] }),
    '--compare: rows line 1 can be scored by one of the models only; leave such rows out of --data',
  )
})

test('rows that a suite does not have, or that cannot be scored, are named', async () => {
  const rows = await records({ chosen: A, rejected: B }, { chosen: A, rejected: ids(5, 1e6) })
  const skipped = /^rows line 2: .*1000000/
  await fails(() => evaluatePairs(model, rows), /^rows line 2: .*1000000.* \(--skip-invalid leaves such rows out\)$/)
  const some = await evaluatePairs(model, rows, { skipInvalid: true })
  assert.is(some.questions.length, 1)
  assert.match(some.skipped[0], skipped)
  await fails(
    () => evaluatePairs(model, rows.slice(1), { skipInvalid: true }),
    /^no row can be scored; the first: rows/,
  )
  await fails(() => evaluatePairs(model, rows, { suite: 'rewardbench' }), /^rows line 1: has no "subset"/)
  await fails(() => evaluatePairs(model, rows, { suite: 'rewardbench2' }), /^rows line 1: chosen must be a list/)
  const odd = await records({ chosen: A, rejected: B, subset: 'odd' })
  await fails(() => evaluatePairs(model, odd, { suite: 'rewardbench' }), /^rows line 1: "odd" is no subset/)
})

test('questions with several answers are measured by their rules', async () => {
  const rows = await records({ chosen: [A], rejected: [B, ids(5, 9), ids(5, 8)], subset: 'Math', id: 1 })
  const scores = await scoresOf(A, B, ids(5, 9), ids(5, 8))
  const evaluation = await evaluatePairs(model, rows, { suite: 'rewardbench2', score: { kind: 'expectation' } })
  assert.ok(evaluation.suite === 'rewardbench2')
  const best = scores[0] === Math.max(...scores) ? 1 : 0
  assert.equal([evaluation.result.score, evaluation.result.subsets.Math.accuracy], [best, best])
  assert.is(evaluation.result.missing.length, 5)
})

test('features of pairs have the scores of their rows, shared prompts or not', async () => {
  const heads = await loadHeads(device, await openDirectory(qrm))
  const { embeddings, promptEmbeddings } = await model.features([A, B, B, A], { gate: true })
  const width = heads.hidden
  const both = tensor('embeddings', [2, 2, width], embeddings)
  const [a, b] = await scoresOf(A, B)
  const read = (prompts: Float32Array, shape: number[], subsets: string[]) =>
    openPairs([
      memorySource(
        'f',
        Buffer.concat(
          encodeSafetensors(
            [
              both,
              tensor('prompt_embeddings', shape, prompts),
              tensor('subset_ids', [2], BigInt64Array.of(0n, 1n), 'I64'),
            ],
            { subsets: JSON.stringify(subsets) },
          ),
        ),
      ),
    ])
  const pairs = await read(promptEmbeddings!, [2, 2, width], ['shp', 'donotanswer'])
  const done: number[] = []
  const found = await scorePairFeatures(
    device,
    heads,
    pairs,
    { onProgress: (count) => done.push(count) },
    'rewardbench',
  )
  close(
    found.questions.flatMap(({ scores }) => scores),
    [a, b, b, a],
    1e-5,
    'scores',
  )
  assert.equal(done, [2])
  const evaluation = measurePairs(found, 'rewardbench', { priorSets: true })
  assert.ok(evaluation.suite === 'rewardbench')
  assert.equal(evaluation.result.sections.Safety.rows, 1)
  assert.is(evaluation.result.bench.priorSets, a > b ? 1 : 0)
  const one = new Float32Array(2 * width)
  for (const i of [0, 1]) one.set(promptEmbeddings!.subarray(2 * i * width, (2 * i + 1) * width), i * width)
  const shared = await scorePairFeatures(device, heads, await read(one, [2, width], ['shp', 'x']))
  close(
    shared.questions.flatMap(({ scores }) => scores),
    [a, b, b, a],
    1e-5,
    'scores of shared prompts',
  )
  const foreign = await read(one, [2, width], ['shp', 'x'])
  await fails(
    () => scorePairFeatures(device, heads, foreign, {}, 'rewardbench'),
    /^f: pair 2: "x" is no subset of RewardBench/,
  )
  await fails(
    () => scorePairFeatures(device, { ...heads, hidden: 3 }, foreign),
    `f: must have the 3 columns that the heads are for, got ${width}`,
  )
  const signal = AbortSignal.abort(new Error('enough'))
  await fails(() => scorePairFeatures(device, heads, foreign, { signal }), 'enough')
  heads.destroy()
})

test('rated rows and their features have one calibration', async () => {
  const [name, other] = model.attributes
  const given = await records(
    { ...A, [name]: [0.5, 0.75], note: 1 },
    { ...B, [name]: null, [other]: 2 },
    { ...A, [name]: 1 },
  )
  const rated = readRatedRows(given, model.attributes)
  assert.equal(rated.unused, ['note'])
  const byRows = await quantilesOfRows(model, rated)
  const rowResult = evaluateCalibration(byRows)
  assert.equal(Object.keys(rowResult.attributes), [name, other])
  assert.equal([rowResult.attributes[name].items, rowResult.attributes[name].ratings], [2, 3])
  const { embeddings } = await model.features([A, B, A])
  const ratings = await openRatings([
    memorySource(
      'r',
      Buffer.concat(
        encodeSafetensors(
          [
            tensor('embeddings', [3, embeddings.length / 3], embeddings),
            tensor('labels', [4, 2], Float32Array.of(0.5, Number.NaN, 0.75, Number.NaN, Number.NaN, 2, 1, Number.NaN)),
            tensor('label_rows', [4], Uint32Array.of(0, 0, 1, 2), 'U32'),
          ],
          { attributes: JSON.stringify([name, other]) },
        ),
      ),
    ),
  ])
  const checkpoint = await readCheckpoint(await openDirectory(qrm))
  const byFeatures = await quantilesOfFeatures(device, checkpoint, ratings)
  for (const [i, { quantiles }] of byFeatures.attributes.entries())
    close(quantiles, byRows.attributes[i].quantiles, 1e-5, byFeatures.attributes[i].name)
  const { attributes, mean, missing } = evaluateCalibration(byFeatures, ratingsByAttribute(ratings))
  close([mean.pinball], [(attributes[name].pinball + attributes[other].pinball) / 2], 1e-12, 'mean')
  assert.equal(missing, [])
  const without = new Map([[name, ratingsByAttribute(ratings).get(name)!]])
  assert.equal(evaluateCalibration(byFeatures, without).missing, [other])
  await fails(async () => evaluateCalibration({ ...byFeatures, attributes: [] }), /none of the attributes has ratings/)
  const bad = await records({ ...A, [name]: 'much' })
  await fails(
    async () => readRatedRows(bad, model.attributes),
    /^rows line 1: .* must be a number, null, or a list of them, got "much"$/,
  )
})

test.run()
