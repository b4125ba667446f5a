// Drawing tokens: against the logits processors of transformers, against sorting, and statistics of the draws.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { chooser } from '../src/generate/chooser.ts'
import { GENERATION_DEFAULTS, type GenerationSettings } from '../src/generate/continuation.ts'
import { Sampler, unitDraw } from '../src/generate/sampling.ts'
import { kthLargest, largestOf } from '../src/generate/selection.ts'
import { close, fails } from './assert.ts'
import { fixtureJson } from './fixture.ts'
import { random } from './random.ts'

interface Case {
  readonly settings: Record<string, number | number[]>
  readonly tokens: number[]
  readonly prompt: number
  readonly logits: number[]
  /** null: banned */
  readonly scores: (number | null)[]
  readonly kept: number[]
  readonly probabilities: number[]
}

interface Fixture {
  readonly cases: Case[]
  readonly greedy: { repetition_penalty: number; tokens: number[]; logits: number[]; token: number }[]
}

const { cases, greedy } = await fixtureJson<Fixture>('sampling.json')

function settingsOf(given: Case['settings'], more: Partial<GenerationSettings> = {}): GenerationSettings {
  const number = (name: string, usual: number) => (given[name] as number | undefined) ?? usual
  return {
    ...GENERATION_DEFAULTS,
    temperature: number('temperature', 1),
    topK: number('top_k', 0),
    topP: number('top_p', 1),
    minP: number('min_p', 0),
    repetitionPenalty: number('repetition_penalty', 1),
    minNewTokens: number('min_new_tokens', 0),
    stopTokens: (given.eos_token_id as number[] | undefined) ?? [],
    ...more,
  }
}

/** Of tokens with equal logits transformers keeps some; here it is the first of them. */
function firstOfEquals(kept: readonly number[], scores: readonly (number | null)[]): number[] {
  const counts = new Map<number | null, number>()
  for (const token of kept) counts.set(scores[token], (counts.get(scores[token]) ?? 0) + 1)
  return scores.flatMap((score, token) => {
    const left = counts.get(score) ?? 0
    counts.set(score, left - 1)
    return left > 0 ? [token] : []
  })
}

test('what may be drawn, how often, and its log-probability are those of transformers', () => {
  assert.ok(cases.length > 50)
  for (const { settings, tokens, prompt, logits, scores, kept, probabilities } of cases) {
    const name = JSON.stringify(settings)
    const own = settingsOf(settings)
    const sampler = new Sampler(own, logits.length)
    const banned = tokens.length - prompt < own.minNewTokens ? own.stopTokens : []
    const expected = firstOfEquals(kept, scores)
    assert.is(expected.length, kept.length, name)
    const probability = new Map(kept.map((token, i) => [scores[token], probabilities[i]]))
    // Draws just inside both ends of every token's share, and in its middle. Penalised logits are rounded to f32.
    const margin = own.repetitionPenalty === 1 ? 1e-9 : 1e-6
    let before = 0
    for (const token of expected) {
      const share = probability.get(scores[token])!
      for (const unit of [before + margin, before + share / 2, before + share - margin]) {
        if (share < 10 * margin) continue
        const drawn = sampler.draw(Float32Array.from(logits), { seen: [tokens], banned, unit })
        assert.is(drawn.token, token, `${name} at ${unit}`)
        const limit = own.repetitionPenalty === 1 ? 2e-12 : (16 * 2 ** -24) / own.temperature
        close([drawn.logprob], [scores[token]!], limit * Math.max(1, Math.abs(scores[token]!)), name)
      }
      before += share
    }
    close([before], [1], 1e-9, name)
  }
})

test('greedy: the most probable token of the penalised logits, the first of equals, at temperature 1', () => {
  for (const { repetition_penalty: repetitionPenalty, tokens, logits, token } of greedy) {
    const settings = settingsOf({}, { temperature: 0, repetitionPenalty, topK: 1, topP: 0.1 })
    const drawn = new Sampler(settings, logits.length).draw(Float32Array.from(logits), {
      seen: [tokens],
      banned: [],
      unit: 0.999,
    })
    assert.is(drawn.token, token)
    const scores = logits.map((x, i) =>
      tokens.includes(i) ? (x < 0 ? x * repetitionPenalty : x / repetitionPenalty) : x,
    )
    const total = scores.reduce((sum, x) => sum + Math.exp(x), 0)
    close([drawn.logprob], [scores[token] - Math.log(total)], 1e-6, 'log-probability')
  }
  const sampler = new Sampler(settingsOf({}, { temperature: 0 }), 4)
  const drawn = sampler.draw(Float32Array.of(1, 3, 3, 2), { seen: [], banned: [], unit: 0.5 })
  assert.is(drawn.token, 1)
})

test('logits that are no numbers, and vocabularies of stop tokens alone, are refused', async () => {
  const sampler = new Sampler(settingsOf({ top_k: 2 }), 3)
  const draw = (logits: number[], banned: number[] = []) =>
    sampler.draw(Float32Array.from(logits), { seen: [], banned, unit: 0.5 })
  await fails(() => draw([0, Number.NaN, 1]), /^generate: logits must be finite, got NaN for token 1; /)
  await fails(() => draw([0, 1, Infinity]), /^generate: logits must be finite, got Infinity for token 2; /)
  await fails(() => draw([0, 1, 2], [0, 1, 2]), /^generate: no token can be drawn/)
  assert.is(draw([0, -Infinity, -Infinity]).token, 0)
})

test('the k-th largest and the smallest set that reaches a mass are those of a sort', () => {
  const draw = random(1)
  for (let round = 0; round < 400; round++) {
    const length = 1 + Math.floor(draw.next() * 60)
    // Few different values: many are equal.
    const values = Float32Array.from(draw.integers(length, 1, 2 + round), (n) => n / 8)
    const sorted = values.slice().sort().reverse()
    const k = 1 + Math.floor(draw.next() * length)
    assert.is(kthLargest(values, k, new Float32Array(k)), sorted[k - 1])
    const total = values.reduce((sum, x) => sum + x, 0)
    const mass = draw.next() < 0.1 ? total : draw.next() * total
    let [sum, count] = [0, 0]
    while (count === 0 || sum < mass) sum += sorted[count++]
    const { least, equals } = largestOf(Float64Array.from(values), length, mass)
    assert.is(least, sorted[count - 1])
    assert.is(equals, sorted.slice(0, count).filter((value) => value === least).length)
  }
})

/** (chi squared - its mean) / its standard deviation, for counts that should be as expected. */
function chiSquaredZ(counts: ArrayLike<number>, expected: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < counts.length; i++) sum += (counts[i] - expected[i]) ** 2 / expected[i]
  return (sum - (counts.length - 1)) / Math.sqrt(2 * (counts.length - 1))
}

test('draws are uniform along tokens, samples, prompts and seeds, and neighbours are independent: |z| < 4', () => {
  const axes: [string, (i: number) => number][] = [
    ['places', (i) => unitDraw(1, 2, 3, i)],
    ['samples', (i) => unitDraw(1, 2, i, 0)],
    ['keys', (i) => unitDraw(1, i, 0, 0)],
    ['seeds', (i) => unitDraw(i, 2, 3, 4)],
  ]
  const draws = 2 ** 16
  for (const [name, at] of axes) {
    const single = new Float64Array(64)
    const pairs = new Float64Array(64)
    for (let i = 0; i < draws; i++) {
      const unit = at(i)
      assert.ok(unit >= 0 && unit < 1)
      single[Math.floor(64 * unit)]++
      pairs[8 * Math.floor(8 * unit) + Math.floor(8 * at(i + 1))]++
    }
    const expected = new Float64Array(64).fill(draws / 64)
    for (const [what, counts] of Object.entries({ single, pairs })) {
      const z = chiSquaredZ(counts, expected)
      assert.ok(Math.abs(z) < 4, `${name}, ${what}: z = ${z.toFixed(2)}`)
    }
  }
  // Two samples of a prompt at the same place, and the same sample of two prompts.
  for (const [name, at] of [
    ['samples', (i: number) => [unitDraw(9, 5, 0, i), unitDraw(9, 5, 1, i)]],
    ['prompts', (i: number) => [unitDraw(9, 5, 0, i), unitDraw(9, 6, 0, i)]],
  ] as const) {
    let product = 0
    for (let i = 0; i < draws; i++) {
      const [a, b] = at(i)
      product += (a - 0.5) * (b - 0.5)
    }
    const z = (12 * product) / Math.sqrt(draws)
    assert.ok(Math.abs(z) < 4, `${name}: correlation, z = ${z.toFixed(2)}`)
  }
})

test('no draw is there twice among 2^17 of one prompt', () => {
  const seen = new Set<number>()
  for (let sample = 0; sample < 512; sample++) {
    for (let place = 0; place < 256; place++) seen.add(unitDraw(0, 7, sample, place))
  }
  assert.is(seen.size, 2 ** 17)
})

test('frequencies of 40,000 draws are the probabilities: |z| < 4, for each way to draw', () => {
  const vocab = 600
  const logits = random(3).normal(vocab, { deviation: 2 })
  const draws = 40_000
  const ways: Case['settings'][] = [
    {},
    { temperature: 0.6 },
    { top_k: 40 },
    { top_p: 0.8, temperature: 1.3 },
    { min_p: 0.02 },
  ]
  for (const settings of ways) {
    const own = settingsOf(settings, { seed: 11 })
    const prompts = [{ tokens: Uint32Array.of(0), samples: draws, key: 4 }]
    const choose = chooser(own, prompts)
    const counts = new Float64Array(vocab)
    for (let sample = 0; sample < draws; sample++) {
      counts[choose({ prompt: 0, sample, tokens: [], logits: logits.slice() }).token]++
    }
    const kept = [...counts.keys()].filter((token) => counts[token] > 0)
    const weight = (token: number) => Math.exp(logits[token] / own.temperature)
    const total = kept.reduce((sum, token) => sum + weight(token), 0)
    // Rare tokens are one group.
    const common = kept.filter((token) => (draws * weight(token)) / total >= 10)
    const found = common.map((token) => counts[token])
    const expected = common.map((token) => (draws * weight(token)) / total)
    const rest = [found, expected].map((values) => draws - values.reduce((sum, value) => sum + value, 0))
    if (rest[1] >= 10) {
      found.push(rest[0])
      expected.push(rest[1])
    }
    const z = chiSquaredZ(found, expected)
    assert.ok(common.length > 15 && Math.abs(z) < 4, `${JSON.stringify(settings)}: z = ${z.toFixed(2)}`)
  }
})

test('a token does not depend on what was drawn before it', () => {
  const draw = random(8)
  const rows = Array.from({ length: 20 }, () => draw.normal(300, { deviation: 3 }))
  const prompts = rows.map((_, i) => ({ tokens: Uint32Array.of(i, i + 1), samples: 3, key: i }))
  const settings = settingsOf({ top_k: 50, top_p: 0.9, min_p: 0.01, repetition_penalty: 1.2 }, { seed: 5 })
  const all = (order: readonly number[]) => {
    const choose = chooser(settings, prompts)
    const found = new Map<number, string>()
    for (const i of order) {
      const choice = { prompt: i, sample: i % 3, tokens: [i, 2 * i], logits: rows[i].slice() }
      found.set(i, JSON.stringify(choose(choice)))
    }
    return rows.map((_, i) => found.get(i))
  }
  const forwards = rows.map((_, i) => i)
  assert.equal(all(forwards.slice().reverse()), all(forwards))
  assert.equal(all([...forwards, ...forwards]), all(forwards))
  // Another key or another sample draws something else.
  const one = (sample: number, key: number) => {
    const choose = chooser(settings, [{ tokens: Uint32Array.of(1), samples: 2, key }])
    return rows.map((logits) => choose({ prompt: 0, sample, tokens: [], logits: logits.slice() }).token)
  }
  assert.not.equal(one(0, 1), one(1, 1))
  assert.not.equal(one(0, 1), one(0, 2))
  assert.equal(one(1, 2), one(1, 2))
})

test('the penalty is for tokens of the prompt and of the continuation', () => {
  const settings = settingsOf({ repetition_penalty: 2 }, { temperature: 0 })
  const choose = chooser(settings, [{ tokens: Uint32Array.of(2, 2, 3), samples: 1, key: 0 }])
  const next = (tokens: number[]) => choose({ prompt: 0, sample: 0, tokens, logits: Float32Array.of(1, 3, 5, 4) }).token
  assert.is(next([]), 1)
  assert.is(next([1]), 2)
})

test('settings out of range are refused by name', async () => {
  const refused = (change: Partial<GenerationSettings>, message: string | RegExp) =>
    fails(() => chooser({ ...GENERATION_DEFAULTS, ...change }, []), message)
  await refused({ temperature: -1 }, 'generate: temperature must be a number of at least 0, got -1')
  await refused({ topK: 1.5 }, 'generate: topK must be a whole number of at least 0 (0: all tokens), got 1.5')
  await refused({ topP: 0 }, 'generate: topP must be above 0 and at most 1, got 0')
  await refused({ minP: 1.1 }, 'generate: minP must be from 0 to 1, got 1.1')
  await refused({ repetitionPenalty: 0 }, 'generate: repetitionPenalty must be above 0, got 0')
  await refused({ seed: -1 }, 'generate: seed must be a whole number from 0 to 2^32 - 1, got -1')
  await refused({ maxNewTokens: 0 }, 'generate: maxNewTokens must be a whole number of at least 1, got 0')
  await refused({ maxNewTokens: 3, minNewTokens: 4 }, 'generate: minNewTokens must be at most maxNewTokens (3), got 4')
  await refused({ stopTokens: [-1] }, 'generate: a stop token must be a token id, got -1')
  await refused({ stopStrings: [''] }, 'generate: a stop string must be a text of at least one character, got ""')
  await refused({ stopStrings: ['a'] }, /^generate: stop strings need a tokenizer/)
})

test.run()
