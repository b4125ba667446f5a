// Best of several texts by a reward distribution: what the reward model reads, what is chosen, and how the left tail moves.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { leftTail } from '../src/evaluate/left_tail.ts'
import { openDirectory } from '../src/files/disk.ts'
import { type RankedTexts, type RankOptions, rankTexts } from '../src/generate/best_of.ts'
import { rankFinished } from '../src/generate/finished.ts'
import type { GeneratedText } from '../src/generate/texts.ts'
import { quantile, rearrange } from '../src/reward/distribution.ts'
import { loadRewardModel, type RewardModel } from '../src/reward/model.ts'
import { parseScoreKind, pointScore } from '../src/reward/scoring.ts'
import { renderChat } from '../src/text/chat.ts'
import { close, fails } from './assert.ts'
import { qrm } from './command.ts'
import { closeDevices, testDevices } from './device.ts'
import { random } from './random.ts'

test.after(closeDevices)

let reward: RewardModel
test.before(async () => {
  const [device] = await testDevices()
  reward = await loadRewardModel(device, await openDirectory('models/nano'))
})
test.after(() => reward.destroy())

const ANSWERS = [
  'A delight.',
  'I fell asleep.',
  'It was terrible and boring.',
  'Great, I loved it!',
  'Dull.',
  'What film?',
]

/** A text as a model of the same tokens would have written it. */
function written(row: number, sample: number, text: string, changes: Partial<GeneratedText> = {}): GeneratedText {
  const tokens = reward.tokenizer!.encode(text)
  return {
    ...{ row, sample, prompt: 'How was the film?', text, tokens },
    promptTokens: renderChat(reward.tokenizer!, [{ role: 'user', content: 'How was the film?' }], {
      bos: 'template',
      addGenerationPrompt: true,
    }),
    logprobs: new Float32Array(tokens.length),
    finishReason: 'stop',
    ...changes,
  }
}

const film = { role: 'user', content: 'How was the film?' } as const
const answered = (content: string) => ({ messages: [film, { role: 'assistant', content }] })

test('texts get the scores that their conversations get, and the best by the ranking is chosen', async () => {
  const draw = random(2)
  const answers = Array.from({ length: 30 }, () =>
    [...draw.integers(3, 0, ANSWERS.length)].map((i) => ANSWERS[i]).join(' '),
  )
  const texts = answers.map((text, sample) => written(0, sample, text))
  const scores = await reward.score(answers.map(answered))
  const picks = new Set<number>()
  for (const kind of ['expectation', 'utility', 'cvar', 'cvar:0.5', 'quantile:0.9', 'certainty-equivalent']) {
    const rank = parseScoreKind(kind)
    const [found, ...none] = await rankTexts(reward, texts, { rank, lambda: 3 })
    assert.equal(none, [])
    assert.equal(
      found.scores.map(({ quantiles }) => [...quantiles]),
      scores.map(({ quantiles }) => [...quantiles]),
    )
    const points = scores.map((score) => pointScore(rank, score, reward.levels, 3))
    assert.equal(found.points, points)
    assert.is(found.chosen, points.indexOf(Math.max(...points)), kind)
    const expected = scores.map(({ score }) => score)
    assert.is(found.expected, expected.indexOf(Math.max(...expected)))
    assert.equal(found.texts, texts)
    picks.add(found.chosen)
  }
  // Rankings part on these texts, so that the test can tell them apart.
  assert.ok(picks.size > 2, [...picks].join())
})

test('the first of equals is chosen', async () => {
  const texts = ['Dull.', 'A delight.', 'A delight.'].map((text, sample) => written(0, sample, text))
  const [{ points, chosen }] = await rankTexts(reward, texts)
  assert.is(points[1], points[2])
  assert.is(chosen, points[1] > points[0] ? 1 : 0)
  const [twins] = await rankTexts(reward, texts.slice(1))
  assert.is(twins.chosen, 0)
})

test('a text that its length has ended gets no end of turn', async () => {
  const [cut, whole] = (
    await rankTexts(reward, [
      written(0, 0, ' I think that', { finishReason: 'length' }),
      written(1, 0, ' I think that', { prompt: [film] }),
    ])
  ).map(({ scores }) => scores[0])
  assert.is.not(cut.score, whole.score)
  assert.is(cut.tokens, whole.tokens - 1)
  const all = renderChat(reward.tokenizer!, answered(' I think that').messages, { bos: reward.bos })
  const [direct] = await reward.score([{ input_ids: all.slice(0, -1) }])
  assert.equal([...cut.quantiles], [...direct.quantiles])
})

test('the reward model can read the tokens of the policy', async () => {
  const text = written(0, 0, 'A delight.')
  const [{ scores }] = await rankTexts(reward, [text], { rewardTokens: 'policy' })
  const [direct] = await reward.score([{ input_ids: [...text.promptTokens, ...text.tokens] }])
  assert.equal([...scores[0].quantiles], [...direct.quantiles])
})

test('rows are ranked some at a time, each as alone; an abort leaves those that were ranked', async () => {
  const draw = random(3)
  const texts: GeneratedText[] = []
  for (let row = 0; row < 50; row++) {
    for (let sample = 0; sample < 3; sample++) {
      const words = [...draw.integers(4, 0, ANSWERS.length)].map((i) => ANSWERS[i])
      texts.push(written(row, sample, words.join(' ')))
    }
  }
  const ranked: RankedTexts[] = []
  const done: number[] = []
  const onProgress: RankOptions['onProgress'] = (progress) => done.push(progress.done)
  const found = await rankTexts(reward, texts, { onRanked: (row) => ranked.push(row), onProgress })
  assert.equal(found, ranked)
  assert.equal(
    found.map(({ row }) => row),
    Array.from({ length: 50 }, (_, row) => row),
  )
  assert.equal(done, [66, 132, 150])
  const [alone] = await rankTexts(reward, texts.slice(3 * 30, 3 * 31))
  assert.equal(alone, found[30])
  const abort = new AbortController()
  const before: RankedTexts[] = []
  const onRanked = (row: RankedTexts) => {
    before.push(row)
    if (before.length === 30) abort.abort(new Error('enough'))
  }
  await fails(() => rankTexts(reward, texts, { onRanked, signal: abort.signal }), 'enough')
  assert.ok(before.length >= 30 && before.length < 50)
  assert.equal(before, found.slice(0, before.length))
})

test('rows of which texts are missing are not ranked, and an abort leaves those that were', async () => {
  const texts = Array.from({ length: 80 }, (_, i) => written(i >> 1, i % 2, ANSWERS[i % ANSWERS.length]))
  const all = await rankTexts(reward, texts)
  assert.equal(await rankFinished(reward, texts.slice(0, 7), 2, {}), all.slice(0, 3))
  const before = new AbortController()
  before.abort()
  assert.equal(await rankFinished(reward, texts.slice(0, 4), 2, { signal: before.signal }), all.slice(0, 2))
  const abort = new AbortController()
  const onRanked = () => abort.abort()
  assert.equal(await rankFinished(reward, texts, 2, { signal: abort.signal, onRanked }), all.slice(0, 32))
  await fails(() => rankFinished(reward, [written(0, 0, 'x', { text: null })], 1, {}), /^row 1, sample 0: /)
})

test('what cannot be ranked is refused with its row, sample and remedy', async () => {
  const cases: [() => unknown, string | RegExp][] = [
    [
      () => rankTexts(reward, [written(0, 0, 'x'), written(2, 1, 'x', { prompt: [1, 2] })]),
      "row 3, sample 1: the prompt is token ids; let the reward model read the policy's tokens (--reward-tokens policy)",
    ],
    [() => rankTexts(reward, [written(0, 0, 'x', { text: null })]), /^row 1, sample 0: the text is tokens/],
    [
      () => rankTexts(reward, [written(0, 4, 'word '.repeat(2000))], { nameRow: () => 'a.jsonl:9' }),
      /^a\.jsonl:9, sample 4: the row has \d+ tokens, the model takes 1024/,
    ],
    [
      () => rankTexts(reward, [written(0, 0, 'x')], { rank: { kind: 'utility' }, lambda: 0 }),
      'rank: the utility of lambda 0 is -1 for every text; give a lambda above 0',
    ],
  ]
  for (const [work, message] of cases) await fails(work, message)
  const [device] = await testDevices()
  const bare = await loadRewardModel(device, await openDirectory(qrm))
  await fails(() => rankTexts(bare, [written(0, 0, 'x')]), /^row 1, sample 0: .*debiased has no tokenizer; let the/)
  await bare.destroy()
  assert.equal(await rankTexts(reward, []), [])
})

test('the left tail of the chosen beside all and beside the best by expectation, by hand', () => {
  const levels = [0.1, 0.3, 0.7]
  const draw = random(5)
  const rows = Array.from({ length: 9 }, (_, i) => ({
    scores: Array.from({ length: 4 }, () => {
      const quantiles = draw.normal(3)
      return { quantiles, expectation: quantiles.reduce((sum, q) => sum + q, 0) / 3 }
    }),
    chosen: i % 4,
    expected: (i + 1) % 3,
  }))
  const tail = leftTail(rows, levels)
  assert.equal(
    tail.map(({ name }) => name),
    ['q05', 'q10', 'q15', 'q20', 'q25', 'expectation'],
  )
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  for (const [k, found] of tail.entries()) {
    const of = ({ quantiles, expectation }: (typeof rows)[number]['scores'][number]) =>
      k === 5 ? expectation : quantile(rearrange(quantiles), levels, [0.05, 0.1, 0.15, 0.2, 0.25][k])
    const all = mean(rows.map(({ scores }) => mean(scores.map(of))))
    const chosen = mean(rows.map(({ scores, chosen: c }) => of(scores[c])))
    const other = mean(rows.map(({ scores, expected: e }) => of(scores[e])))
    const { gain, againstExpectation } = found
    const numbers = [found.all, found.chosen, found.byExpectation, gain.difference, againstExpectation.difference]
    close(numbers, [all, chosen, other, chosen - all, chosen - other], 1e-12, found.name)
    for (const { difference, interval } of [gain, againstExpectation])
      assert.ok(interval![0] < difference && difference < interval![1])
  }
  // At a level that the model has, the value is its own: sorted, the lowest of three.
  assert.is(tail[1].chosen, mean(rows.map(({ scores, chosen }) => Math.min(...scores[chosen].quantiles))))
  assert.is(leftTail(rows.slice(0, 1), levels)[0].gain.interval, null)
  assert.equal(
    leftTail(
      rows.map((row) => ({
        ...row,
        scores: row.scores.map((score) => ({ ...score, quantiles: [score.expectation] })),
      })),
      [0.5],
    ).map(({ name }) => name),
    ['expectation'],
  )
  assert.equal(leftTail([], levels), [])
})

test.run()
