// The small world: its truth against simulated raters, its answers, its base, and the reward model that is fitted in it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { memoryStore } from '../src/files/store.ts'
import { figure3Files } from '../src/report/figure3.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { renderChat } from '../src/text/chat.ts'
import { loadTokenizer } from '../src/text/tokenizer.ts'
import { writeAnswers } from '../src/world/answers.ts'
import { makeBase } from '../src/world/base.ts'
import { reproduceFigure3 } from '../src/world/figure3.ts'
import { measureAnswers, TAIL, tailOf } from '../src/world/measure.ts'
import { POLICY_DEFAULTS, sftRows } from '../src/world/policy.ts'
import { fitWorldReward, LEVELS, REWARD_DEFAULTS } from '../src/world/reward.ts'
import {
  FAULTS,
  simulateRating,
  trueBelow,
  trueDensity,
  trueFault,
  trueMean,
  trueQuantile,
  trueRatings,
  trueUtility,
  WORST,
} from '../src/world/truth.ts'
import {
  ADJECTIVES,
  CAMPS,
  END,
  idOf,
  PROMPTS,
  STYLE_NAMES,
  STYLES,
  textOf,
  VOCABULARY,
  type WorldPrompt,
} from '../src/world/words.ts'
import { close } from './assert.ts'
import { random } from './random.ts'

const SOUP = PROMPTS[0]

const tokensOf = (text: string): Uint32Array<ArrayBuffer> => Uint32Array.from(text.split(' ').filter(Boolean), idOf)

/** An answer with its end of turn. */
const ended = (text: string) => Uint32Array.from([...tokensOf(text), END])

test('words: ids are places, styles have equal means and other tails, camps are everybody', () => {
  assert.is(new Set(VOCABULARY).size, VOCABULARY.length)
  for (const [id, word] of VOCABULARY.entries()) assert.is(idOf(word), id)
  assert.throws(() => idOf('pizza'), /there is no word "pizza"/)
  close([CAMPS.reduce((sum, { share }) => sum + share, 0)], [1], 1e-12, 'camps')
  close([STYLE_NAMES.reduce((sum, style) => sum + STYLES[style].share, 0)], [1], 1e-12, 'styles')
  const meanOf = (liked: readonly number[]) => CAMPS.reduce((sum, { share }, c) => sum + share * liked[c], 0)
  for (const style of ['warm', 'bold', 'wry'] as const) {
    close([meanOf(STYLES[style].liked)], [0.4], 1e-12, style)
    const words = ADJECTIVES.filter((adjective) => adjective.style === style)
    close([words.reduce((sum, { liked }) => sum + meanOf(liked), 0) / words.length], [0.4], 1e-12, `words of ${style}`)
  }
  assert.is(PROMPTS.length, 36)
})

test('truth: every formula against 200,000 simulated raters', () => {
  const count = 200_000
  const answers = [
    ended('the soup was gentle honest'),
    ended('the soup was epic loud wild'),
    ended('the soup was droll epic'),
    ended('the film was rotten'),
    tokensOf('was was epic <s>'),
  ]
  for (const [a, answer] of answers.entries()) {
    const truth = trueRatings(SOUP, answer)
    const name = textOf(answer)
    const ratings = Float64Array.from({ length: count }, (_, i) => simulateRating(truth, 7, a * count + i)).sort()
    const mean = ratings.reduce((sum, rating) => sum + rating, 0) / count
    const deviation = Math.sqrt(ratings.reduce((sum, rating) => sum + (rating - mean) ** 2, 0) / count)
    // Five standard errors.
    close([mean], [trueMean(truth)], (5 * deviation) / Math.sqrt(count), `mean of ${name}`)
    const utilities = ratings.map((rating) => -Math.exp(-2 * rating))
    const utility = utilities.reduce((sum, value) => sum + value, 0) / count
    const spread = Math.sqrt(utilities.reduce((sum, value) => sum + (value - utility) ** 2, 0) / count)
    close([utility], [trueUtility(truth, 2)], (5 * spread) / Math.sqrt(count), `utility of ${name}`)
    for (const level of [...TAIL, 0.5, 0.95]) {
      const q = trueQuantile(truth, level)
      close([trueBelow(truth, q)], [level], 1e-7, `level ${level} of ${name}`)
      const below = ratings.filter((rating) => rating <= q).length / count
      close([below], [level], 5 * Math.sqrt((level * (1 - level)) / count), `ratings below level ${level} of ${name}`)
    }
    // The density is the derivative of the probability.
    for (const value of [-0.6, 0, 0.35, 0.9]) {
      const slope = (trueBelow(truth, value + 1e-5) - trueBelow(truth, value - 1e-5)) / 2e-5
      close([trueDensity(truth, value)], [slope], 1e-6, `density of ${name} at ${value}`)
    }
  }
})

test('truth: what each fault takes', () => {
  const cases: [string, number, boolean?][] = [
    ['the soup was gentle honest', 0],
    ['the soup was gentle honest kind fresh', 0],
    ['the soup was gentle honest gentle', FAULTS.repeated],
    ['the soup was gentle gentle gentle', 2 * FAULTS.repeated],
    ['the soup was gentle', FAULTS.tooFew],
    ['the soup was gentle honest kind fresh bright cosy', 2 * FAULTS.tooMany],
    ['the film was gentle honest', FAULTS.topicMissing + FAULTS.otherTopic],
    ['the soup was gentle film honest', FAULTS.otherTopic + FAULTS.stray],
    ['the soup was gentle and honest', FAULTS.stray],
    ['soup the was gentle honest', 2 * FAULTS.stray],
    ['the soup was gentle honest', FAULTS.endless, true],
    ['', 2 * FAULTS.tooFew + FAULTS.topicMissing],
    ['film '.repeat(20), WORST],
  ]
  for (const [text, fault, endless] of cases) {
    const answer = endless ? tokensOf(text) : ended(text)
    close([trueFault(SOUP, answer)], [fault], 1e-12, `${text}${endless ? ', without an end' : ''}`)
  }
  const plain = trueRatings(SOUP, ended('the soup was gentle honest')).means
  const behind = trueRatings(SOUP, [...ended('the soup was gentle honest'), ...tokensOf('film <s> epic')]).means
  assert.equal(behind, plain, 'what comes after the end of turn is no part of the answer')
})

test('truth: any tokens have finite ratings, and no answer is worse than all faults', () => {
  const draw = random(3)
  const least = Math.min(...ADJECTIVES.flatMap(({ liked }) => liked)) - 0.1 - WORST
  const most = Math.max(...ADJECTIVES.flatMap(({ liked }) => liked)) + 0.1
  for (let i = 0; i < 2000; i++) {
    const prompt = PROMPTS[i % PROMPTS.length]
    const tokens = draw.integers(draw.integers(1, 0, 12)[0], 0, VOCABULARY.length)
    for (const mean of trueRatings(prompt, tokens).means)
      assert.ok(mean >= least - 1e-12 && mean <= most + 1e-12, `${textOf(tokens)}: ${mean}`)
  }
})

test('answers: people of the world write well unless they are careless; the same seed gives the same', () => {
  const careful = writeAnswers(5, 500, 0)
  for (const { prompt, tokens } of careful) assert.is(trueFault(prompt, tokens), 0, textOf(tokens))
  const careless = writeAnswers(5, 500, 1).filter(({ prompt, tokens }) => trueFault(prompt, tokens) > 0)
  assert.ok(careless.length > 400, `${careless.length} of 500 have a fault`)
  assert.equal(writeAnswers(5, 20, 0), careful.slice(0, 20))
  assert.not.equal(writeAnswers(6, 20, 0), careful.slice(0, 20))
  const words = careful.flatMap(({ tokens }) => textOf(tokens).split(' ').slice(3))
  for (const style of STYLE_NAMES) {
    const share = words.filter((word) => STYLES[style].words.includes(word)).length / words.length
    const expected = 0.75 * STYLES[style].share + 0.25 / STYLE_NAMES.length
    // Words of one answer go together: as if each answer were one word.
    close([share], [expected], 5 * Math.sqrt((expected * (1 - expected)) / careful.length), style)
  }
  const [{ tokens, labels }] = sftRows(5, 1)
  const { prompt, tokens: answer } = careful[0]
  assert.equal([...tokens], [...prompt.tokens, ...answer])
  assert.equal([...labels], [...Array(prompt.tokens.length).fill(-100), ...answer])
})

test('the base: a Llama with a tokenizer of whole words, whose template gives the prompts', async () => {
  const base = makeBase(1)
  const tokenizer = (await loadTokenizer(base))!
  assert.is(tokenizer.size, VOCABULARY.length)
  for (const { text, tokens } of PROMPTS) {
    const own = renderChat(tokenizer, [{ role: 'user', content: text }], { bos: 'template', addGenerationPrompt: true })
    assert.equal([...own], [...tokens], text)
    assert.is(tokenizer.decode(tokenizer.encode(text)), text)
  }
  assert.equal([...tokenizer.encode('the pizza')], [idOf('the'), idOf('<unk>')])
  const bytes = async (seed: number) => {
    const source = (await makeBase(seed).open('model.safetensors'))!
    return source.read(0, source.byteLength)
  }
  assert.equal(await bytes(1), await bytes(1))
  assert.not.equal(await bytes(1), await bytes(2))
})

test('the reward model is calibrated, and tells answers that split raters from those that unite them', async () => {
  const device = await openDevice('wasm')
  try {
    const out = memoryStore('reward')
    const settings = { ...REWARD_DEFAULTS, answers: 1500, held: 500, alpha: 1e-4 }
    await fitWorldReward(device, makeBase(1), 3, out, settings)
    const model = await loadRewardModel(device, out)
    assert.equal([model.calibrated, model.attributes, model.lambda], [true, ['rating'], REWARD_DEFAULTS.lambda])
    const score = async (answers: readonly { prompt: WorldPrompt; tokens: Uint32Array }[]) =>
      measureAnswers(
        answers,
        await model.score(answers.map(({ prompt, tokens }) => ({ input_ids: [...prompt.tokens, ...tokens] }))),
        model.levels,
      )
    // As exchangeable with the calibration's answers as can be: 500 items bound the error of a level by about 0.05.
    const all = await score(writeAnswers(99, 1500, settings.careless))
    for (const [k, covered] of all.coverage.entries()) close([covered], [LEVELS[k]], 0.06, `level ${LEVELS[k]}`)
    const of = (words: readonly string[]) =>
      score(
        PROMPTS.flatMap((prompt) =>
          words.map((word, i) => ({
            prompt,
            tokens: ended(`the ${prompt.topic} was ${word} ${words[(i + 1) % words.length]}`),
          })),
        ),
      )
    const [warm, bold] = [await of(STYLES.warm.words), await of(STYLES.bold.words)]
    for (const side of ['estimate', 'truth'] as const) {
      const tail = tailOf(warm[side]) - tailOf(bold[side])
      assert.ok(tail > 0.4, `${side}: the left tail of warm answers is ${tail} above that of bold ones`)
      close([warm[side].expectation], [bold[side].expectation], side === 'truth' ? 1e-9 : 0.15, `${side}: expectation`)
    }
    assert.equal([warm.styles.warm, bold.styles.bold, warm.faulty], [1, 1, 0])
    await model.destroy()
  } finally {
    await device.destroy()
  }
})

test('measures are means over answers', () => {
  const answers = [
    { prompt: SOUP, tokens: ended('the soup was gentle honest') },
    { prompt: SOUP, tokens: ended('the soup was epic epic') },
  ]
  const quantiles = [
    [0.3, 0.1, 0.5],
    [-0.4, 0.6, 1],
  ]
  const scores = quantiles.map((own) => ({ quantiles: Float64Array.from(own), expectation: own[2] }))
  const found = measureAnswers(answers, scores as never, [0.25, 0.5, 0.75])
  const truths = answers.map(({ tokens }) => trueRatings(SOUP, tokens))
  const half = (values: readonly number[]) => (values[0] + values[1]) / 2
  close([found.truth.expectation], [half(truths.map(trueMean))], 1e-12, 'truth')
  close([found.estimate.expectation], [0.75], 1e-12, 'estimate')
  // Crossing quantiles are put into order; 0.25 is a level that is there.
  close([found.estimate.quantiles[4]], [half([0.1, -0.4])], 1e-12, 'quantile 25 %')
  close(
    found.coverage,
    [0, 1, 2].map((k) => half([trueBelow(truths[0], [0.1, 0.3, 0.5][k]), trueBelow(truths[1], quantiles[1][k])])),
    1e-12,
    'coverage',
  )
  assert.equal([found.styles.warm, found.styles.bold, found.faulty], [0.5, 0.5, 0.5])
  close([found.fault], [FAULTS.repeated / 2], 1e-12, 'fault')
  assert.throws(() => measureAnswers([], [], LEVELS), /at least one, got 0 and 0/)
})

test('the whole experiment in memory, as a page can run it', async () => {
  const device = await openDevice('wasm')
  const settings = {
    ...{ seeds: 1, policies: ['neutral', 'risk-aware'] as const, steps: 2, prompts: 4, k: 2, every: 1, samples: 1 },
    sft: { ...POLICY_DEFAULTS, answers: 64, held: 8, steps: 2, batch: 8 },
    reward: { ...REWARD_DEFAULTS, answers: 80, held: 40, alpha: 1e-2 },
  }
  const shares: number[] = []
  const figure = await reproduceFigure3(device, { ...settings, onProgress: ({ share }) => shares.push(share) })
  await device.destroy()
  assert.equal(
    figure.runs.map(({ policy, points }) => [policy, points.length, points[0].measures.answers]),
    [
      ['neutral', 2, 8],
      ['risk-aware', 2, 8],
    ],
  )
  // Both begin with the same policy and the same draws.
  assert.equal(figure.runs[0].points[0].measures, figure.runs[1].points[0].measures)
  for (const { points } of figure.runs) assert.is(points[0].kl, 0)
  assert.equal(
    shares,
    [...shares].sort((a, b) => a - b),
    'progress goes forward',
  )
  assert.ok(shares[0] === 0 && shares[shares.length - 1] === 1, `${shares}`)
  assert.match(figure3Files(figure)['report.html'], /^<!doctype html>/)
})

test.run()
