// Sources of rewards: functions, several with weights, reward models in process, and a real HTTP server that fails in every way.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { pointScore } from '../src/reward/scoring.ts'
import { renderChat, renderOpenChat } from '../src/text/chat.ts'
import { httpReward } from '../src/train/rloo/http_reward.ts'
import { modelReward, parseRisk, rescaledUtility } from '../src/train/rloo/model_reward.ts'
import { combineRewards, functionReward, type RewardRow } from '../src/train/rloo/rewards.ts'
import { close, fails } from './assert.ts'
import { startRewards } from './reward_server.ts'

const cpu = await openDevice('wasm', { threads: 1 })
const model = await loadRewardModel(cpu, await openDirectory(new URL('../models/nano', import.meta.url).pathname))
const tokenizer = model.tokenizer!

/** Completions of two prompts, the last of them truncated. */
const SAID = ['A delight.', ' Dull and long, and then it went on.', 'Fine', 'It was the best of']
const rows = SAID.map((completion, i): RewardRow => {
  const id = Math.floor(i / 2)
  const messages = [{ role: 'user', content: id === 0 ? 'How was the film?' : 'And the music in it?' }]
  const prompt_ids = renderChat(tokenizer, messages, { bos: 'template', addGenerationPrompt: true })
  const eot = renderChat(tokenizer, [...messages, { role: 'assistant', content: 'x' }], { bos: 'template' }).at(-1)!
  const ended = i < 3
  return {
    ...{ id, messages, label: `label ${id}`, row: null, completion, prompt_ids },
    prompt: tokenizer.decode(prompt_ids),
    completion_ids: Uint32Array.from([...tokenizer.encode(completion), ...(ended ? [eot] : [])]),
    finish_reason: ended ? 'stop' : 'length',
  }
})
const NOW = { step: 0 }
const combine = (...sources: Parameters<typeof combineRewards>[0]) => combineRewards(sources, rows, NOW, null)

test('the weighted sum is the reward, and each source is in the log by itself', async () => {
  const { rewards, numbers } = await combine(
    functionReward(() => [1, 2, 3, 4], { name: 'a', weight: 0.7 }),
    functionReward(async () => [10, 20, 30, 40], { name: 'b', weight: -0.1 }),
  )
  close(rewards as number[], [-0.3, -0.6, -0.9, -1.2], 1e-12, 'rewards')
  assert.equal([numbers['rewards/a/mean'], numbers['rewards/b/mean']], [2.5, 25])
  close([numbers['rewards/a/std']], [Math.sqrt(5 / 3)], 1e-12, 'deviation with n - 1')
})

test('a source without a reward for a row does not take those of the others away; null, undefined and NaN are none', async () => {
  const { rewards, numbers } = await combine(
    functionReward(() => [1, null, undefined, Number.NaN], { name: 'a' }),
    functionReward(() => [1, 2, 3, null], { name: 'b' }),
  )
  assert.equal(rewards, [2, 2, 3, null])
  assert.equal([numbers['rewards/a/mean'], numbers['rewards/a/missing'], numbers['rewards/b/missing']], [1, 3, 1])
})

test('two sources of one name are told apart', async () => {
  const { numbers } = await combine(
    functionReward(() => [1, 1, 1, 1]),
    functionReward(() => [2, 2, 2, 2]),
  )
  assert.equal([numbers['rewards/function/mean'], numbers['rewards/function-2/mean']], [1, 2])
})

test('what is no reward stops: infinite ones, texts, another number, and a batch without any', async () => {
  const of = (rewards: unknown) => combine(functionReward(() => rewards as number[], { name: 'mine' }))
  await fails(() => of([1, 2, Infinity, 4]), /^mine: a reward must be a finite number or null, prompt 2 got Infinity$/)
  await fails(() => of([1, '2', 3, 4]), /mine: a reward must be a finite number or null, prompt 1 got "2"/)
  await fails(() => of([1, 2, 3]), /mine: must give a reward for each of 4 completions, got 3/)
  await fails(() => of({}), /mine: must give a list of rewards/)
  await fails(() => of([null, null, Number.NaN, null]), /no completion of the batch has a reward, of 4/)
  assert.equal((await of(Float64Array.of(1, 2, 3, 4))).rewards, [1, 2, 3, 4])
})

test('a reward model reads what a user of `score` would give it; a truncated answer has no end of turn', async () => {
  const source = await modelReward(model)
  const { rewards } = await source.score(rows, NOW)
  const given = rows.map(({ messages, completion }) => ({
    messages: [...messages!, { role: 'assistant', content: completion! }],
  }))
  const scores = await model.score(given)
  for (const i of [0, 1, 2]) assert.is(rewards[i], scores[i].score)
  assert.is.not(rewards[3], scores[3].score)
  const whole = model.encode(given[3]).input_ids
  const open = renderOpenChat(tokenizer, rows[3].messages!, SAID[3], { bos: 'template' })
  assert.equal([...open], [...whole.subarray(0, whole.length - 1)], 'all but the end of the turn')
  const [alone] = await model.score([{ input_ids: open }])
  assert.is(rewards[3], alone.score)
})

test("the policy's tokens are read as they are, when that is asked for", async () => {
  const source = await modelReward(model, { policyTokens: true })
  const { rewards } = await source.score(rows, NOW)
  // The template trims what is said; the tokens do not.
  const scores = await model.score(rows.map((row) => ({ input_ids: [...row.prompt_ids, ...row.completion_ids] })))
  assert.equal(
    rewards,
    scores.map(({ score }) => score),
  )
  await fails(
    () => modelReward(model).then((own) => own.score([{ ...rows[0], messages: null }], NOW)),
    /prompt 1 has no text; give it the policy's tokens \(--reward-tokens policy\)/,
  )
})

test('a reward is the same bits alone and beside others, whatever ids stand in the text', async () => {
  const eot = rows[0].completion_ids.at(-1)!
  // The end of turn, which may be the padding of a model, in the middle of a text.
  const odd = { ...rows[0], completion_ids: Uint32Array.of(eot, 5, eot, eot, 7) }
  const source = await modelReward(model, { policyTokens: true })
  const together = await source.score([odd, ...rows], NOW)
  const [alone] = (await source.score([odd], NOW)).rewards
  assert.is(together.rewards[0], alone)
})

test('every risk is its measure of the distribution, and is in the log with expectation, utility, quantiles and gate', async () => {
  const scores = await model.score(
    rows
      .slice(0, 3)
      .map(({ messages, completion }) => ({ messages: [...messages!, { role: 'assistant', content: completion! }] })),
    { lambda: 0.5 },
  )
  for (const name of ['neutral', 'utility', 'cvar:0.2', 'quantile:0.1', 'certainty-equivalent']) {
    const risk = parseRisk(name)
    const source = await modelReward(model, { risk, lambda: 0.5, name: 'nano' })
    const { rewards, numbers } = await combineRewards([source], rows.slice(0, 3), NOW, null)
    assert.equal(
      rewards,
      scores.map((score) => pointScore(risk, score, model.levels, 0.5)),
      name,
    )
    const mean = (pick: (score: (typeof scores)[number]) => number) =>
      scores.reduce((sum, own) => sum + pick(own), 0) / 3
    close([numbers['reward/expectation']], [mean((own) => own.expectation)], 1e-9, 'expectation')
    close([numbers['reward/utility']], [mean((own) => own.utility)], 1e-9, 'utility')
    for (const attribute of model.attributes) {
      close([numbers[`gate/${attribute}`]], [mean((own) => own.gate[attribute])], 1e-9, `gate/${attribute}`)
      close(
        [numbers[`attributes/${attribute}`]],
        [mean((own) => own.attributes[attribute].expectation)],
        1e-9,
        attribute,
      )
    }
    const levels = Object.keys(numbers).filter((key) => key.startsWith('reward/q'))
    assert.equal([levels[0], levels.at(-1), levels.length], ['reward/q05', 'reward/q95', 19])
    for (let i = 1; i < 19; i++) assert.ok(numbers[levels[i]] >= numbers[levels[i - 1]])
  }
})

test('the rescaled utility has slope 1 at its origin, orders as the utility, and tends to the expectation', () => {
  const values = [-1, 0.5, 2]
  close([rescaledUtility(values, 1e-9, 0.25)], [0.5 - 0.25], 1e-8, 'small lambda')
  close([rescaledUtility(values, 0, 0.25)], [0.25], 1e-15, 'lambda 0')
  for (const origin of [-3, 0, 0.7, 40]) {
    const slope = (rescaledUtility([origin + 1e-6], 2, origin) - rescaledUtility([origin - 1e-6], 2, origin)) / 2e-6
    close([slope], [1], 1e-8, `slope at ${origin}`)
    // Affine in the paper's utility, -mean exp(-lambda q).
    const literal = -values.reduce((sum, q) => sum + Math.exp(-0.3 * q), 0) / 3
    close(
      [rescaledUtility(values, 0.3, origin)],
      [(1 + literal * Math.exp(0.3 * origin)) / 0.3],
      1e-9 * Math.exp(0.3 * Math.abs(origin)),
      'affine',
    )
  }
})

test('the origin is fixed by the first rewards', async () => {
  const source = await modelReward(model, { risk: { kind: 'utility' }, rescale: true, lambda: 0.5 })
  assert.is(source.origin, null)
  await source.score(rows, NOW)
  const { origin } = source
  assert.is(origin, Math.fround(origin!))
  await source.score(rows.slice(0, 1), NOW)
  assert.is(source.origin, origin)
  await fails(() => modelReward(model, { rescale: true }), /only the utility can be rescaled, not expectation/)
  await fails(() => modelReward(model, { risk: { kind: 'utility' }, lambda: 0 }), /give a lambda above 0/)
})

test('reliability takes the widths of the distributions; without one it is refused', async () => {
  const source = await modelReward(model)
  const { widths } = await combineRewards([source], rows, NOW, 0.9)
  assert.ok(widths.every((width) => width! > 0))
  const narrow = await combineRewards([source], rows, NOW, 0.5)
  for (const [i, width] of narrow.widths.entries()) assert.ok(width! < widths[i]!)
  await fails(
    () => combineRewards([functionReward(() => [1, 2, 3, 4])], rows, NOW, 0.9),
    /reliability needs a reward model with quantiles/,
  )
})

const QUICK = { pauseMs: 1 }

test('an endpoint is sent query, prompts and labels, and its rewards, scores and logs are taken', async () => {
  const server = await startRewards((query) => (query.includes('Dull') ? null : query.length))
  try {
    const { rewards, numbers } = await combine(httpReward(server.url, { name: 'http' }))
    const queries = rows.map(({ prompt, completion }) => prompt! + completion!)
    assert.equal(server.requests, [
      { query: queries, prompts: rows.map(({ prompt }) => prompt!), labels: rows.map(({ label }) => label) },
    ])
    assert.equal(
      rewards,
      queries.map((query) => (query.includes('Dull') ? null : query.length)),
    )
    const mean = queries.reduce((sum, query) => sum + query.length, 0) / 4
    close([numbers['rewards/http/length']], [mean], 1e-9, 'extra_logs')
    assert.ok('rewards/http/scores' in numbers)
  } finally {
    await server.close()
  }
})

test('server errors, dropped, cut and slow connections are tried again', async () => {
  const server = await startRewards(() => 1)
  try {
    server.faults.push({ status: 503 }, { hangUp: true }, { cut: true, body: '{"rewards":' }, { stall: true })
    const { rewards } = await combine(httpReward(server.url, { ...QUICK, timeoutSeconds: 0.5 }))
    assert.equal([rewards, server.requests.length], [[1, 1, 1, 1], 5])
  } finally {
    await server.close()
  }
})

test('it fails closed: after the last try, and at once where another try would not help; errors name the address', async () => {
  const server = await startRewards(() => 1)
  const { url } = server
  const ask = (options = {}) => combine(httpReward(url, { ...QUICK, ...options }))
  try {
    for (let i = 0; i < 5; i++) server.faults.push({ status: 500 })
    await fails(ask, new RegExp(`^${url}: the server answers 500 \\(tries: 5\\)`))
    assert.is(server.requests.length, 5)
    for (let i = 0; i < 2; i++) server.faults.push({ stall: true })
    await fails(() => ask({ tries: 2, timeoutSeconds: 0.1 }), /does not answer within 0\.1 s \(tries: 2\)/)
    for (const [fault, message] of [
      [{ status: 404 }, /the server answers 404/],
      [{ status: 302, location: '/other' }, /the server answers 302/],
      [{ body: '{"rewards": [1, 2, NaN, 4]}' }, /is no JSON \(a bare NaN or Infinity is none\)/],
      [{ body: '{"rewards": [1, 2, 1e999, 4]}' }, /rewards must be numbers or null, got Infinity/],
      [{ body: '{"rewards": [1, 2, "3", 4]}' }, /rewards must be numbers or null, got "3"/],
      [{ body: '{"rewards": [1, 2, 3]}' }, /must give 4 rewards, got 3/],
      [{ body: '[1, 2, 3, 4]' }, /must answer \{"rewards": \[\.\.\.\]\}/],
      [{ body: ' '.repeat(17 * 2 ** 20) }, /the answer has more than 16777216 bytes/],
    ] as const) {
      const before = server.requests.length
      server.faults.push(fault)
      await fails(ask, new RegExp(`^${url}: .*${message.source}`))
      assert.is(server.requests.length, before + 1, 'it is not asked again')
    }
  } finally {
    await server.close()
  }
  await fails(() => ask({ tries: 2 }), /the server cannot be reached \(ECONNREFUSED\) \(tries: 2\)/)
})

test('a signal ends the waiting', async () => {
  const server = await startRewards(() => 1)
  try {
    server.faults.push({ stall: true })
    const controller = new AbortController()
    const source = httpReward(server.url)
    const call = combineRewards([source], rows, { step: 0, signal: controller.signal }, null)
    while (server.requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    controller.abort(new Error('enough'))
    await fails(() => call, 'enough')
  } finally {
    await server.close()
  }
})

test('what is secret in an address is in no error', async () => {
  await fails(
    () => combine(httpReward('http://me:word@127.0.0.1:1/get?token=x', { ...QUICK, tries: 1 })),
    /^(?!.*(word|token)).*127\.0\.0\.1:1\/get: the server cannot be reached/,
  )
})

test('model and device close', async () => {
  await model.destroy()
  await cpu.destroy()
})

test.run()
