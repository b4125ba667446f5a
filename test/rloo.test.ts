// RLOO on fixed rollouts: closed forms, what is exact at the first update, and one test for each bug that others have had silently.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import type { Adapter } from '../src/llama/adapter_files.ts'
import {
  leaveOneOut,
  normalized,
  reliabilityFactors,
  sequenceKl,
  shapedReward,
  totalReward,
} from '../src/train/rloo/advantages.ts'
import { clippedTerm } from '../src/train/rloo/objective.ts'
import { type Completion, cutRollout } from '../src/train/rloo/rollout.ts'
import { checkRloo, RLOO_DEFAULTS, RLOO_PRESETS, type RlooSettings } from '../src/train/rloo/settings.ts'
import { close, fails } from './assert.ts'
import { random } from './random.ts'
import { rlooCase, runFixed } from './rloo_fixture.ts'

const cpu = await openDevice('wasm', { threads: 1 })
const draw = random(11)

/** Exact numbers, in double precision. */
const EXACT = 1e-12

test('k = 2: one advantage is the difference, the other its opposite', () => {
  const rewards = [...draw.normal(2)]
  const [a, b] = leaveOneOut([7, 7], rewards)
  assert.is(a, rewards[0] - rewards[1])
  assert.is(b, -a)
})

test('advantages of a group add up to 0, and are k / (k - 1) times the distance from its mean', () => {
  for (const k of [2, 3, 8, 31]) {
    const rewards = [...draw.normal(k)]
    const advantages = leaveOneOut(
      rewards.map(() => 0),
      rewards,
    )
    close([advantages.reduce((sum, value) => sum + value, 0)], [0], EXACT * k, 'sum')
    const mean = rewards.reduce((sum, value) => sum + value, 0) / k
    close(
      advantages,
      rewards.map((value) => (k / (k - 1)) * (value - mean)),
      EXACT * k,
      `k ${k}`,
    )
  }
})

test("TRL's worked example, in its order and in any other", () => {
  const rows = [
    [1, 2, 3],
    [2, 3, 4],
    [5, 6, 7],
    [8, 9, 10],
  ]
  // Sample by sample, as old TRL had it, and prompt by prompt, as it is now: groups are by number and not by place.
  const interleaved = leaveOneOut([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], rows.flat())
  assert.is(interleaved[0], 1 - (2 + 5 + 8) / 3)
  assert.is(interleaved[3 * 2 + 1], 6 - (2 + 3 + 9) / 3)
  const turned = [0, 1, 2].flatMap((p) => rows.map((row) => row[p]))
  const apart = leaveOneOut([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], turned)
  for (let p = 0; p < 3; p++) for (let s = 0; s < 4; s++) assert.is(apart[4 * p + s], interleaved[3 * s + p])
})

test('eight completions of which three are right', () => {
  const advantages = leaveOneOut(new Array(8).fill(5), [1, 0, 1, 0, 0, 1, 0, 0])
  close(
    advantages,
    [1, 0, 1, 0, 0, 1, 0, 0].map((right) => (right ? 5 / 7 : -3 / 7)),
    EXACT,
    'advantages',
  )
})

test('a completion without a reward is in no baseline and has no advantage; one that is left alone has none either', () => {
  const advantages = leaveOneOut([0, 0, 0, 1, 1], [1, null, 4, null, 9])
  assert.equal([...advantages], [-3, 0, 3, 0, 0])
})

test('estimators of the KL', () => {
  const [policy, reference] = [
    [-1, -2, -0.5],
    [-1.5, -1, -0.5],
  ]
  close([sequenceKl('k1', policy, reference)], [-0.5], EXACT, 'k1')
  close([sequenceKl('k2', policy, reference)], [0.625], EXACT, 'k2')
  close([sequenceKl('k3', policy, reference)], [Math.exp(-0.5) - 0.5 + Math.exp(1) - 2], EXACT, 'k3')
  assert.ok(sequenceKl('k3', [-1], [-1 - 1e-9]) >= 0)
})

test('the KL is taken off the reward, after clipping; the entropy bonus is added', () => {
  const settings = { beta: 0.5, rewardClip: [-1, 1] as const, entropyBonus: 0.1 }
  assert.is(totalReward({ reward: 3, kl: 4, surprise: 10 }, settings), 1 - 2 + 1)
  assert.is(totalReward({ reward: null, kl: 4, surprise: 10 }, settings), null)
})

test('what a missing end does to a reward', () => {
  const affine = { rewardScale: 2, rewardBias: 1 }
  const shaped = (truncated: RlooSettings['truncated'], ended = false) =>
    shapedReward(3, ended, { ...affine, truncated })
  assert.equal([shaped({ kind: 'kept' }), shaped({ kind: 'masked' })], [7, 7])
  assert.equal([shaped({ kind: 'replace', value: -1 }), shaped({ kind: 'subtract', value: 1 })], [-1, 6])
  assert.is(shaped({ kind: 'replace', value: -1 }, true), 7)
  assert.is(shapedReward(null, false, { ...affine, truncated: { kind: 'replace', value: -1 } }), null)
})

test('normalised advantages have mean 0 and deviation 1, up to the eps; those without a reward stay 0', () => {
  const found = normalized(Float64Array.of(1, 2, 0, 6), [0, 0, null, 0])
  const scale = Math.sqrt(7) + 1e-4
  close(found, [-2 / scale, -1 / scale, 0, 3 / scale], EXACT, 'normalised')
})

test('factors of reliability: a wide interval counts less, all together count as before', () => {
  const factors = reliabilityFactors([1, 3, null])
  assert.ok(factors[0] > factors[2] && factors[2] > factors[1])
  close([factors.reduce((sum, value) => sum + value, 0)], [3], EXACT, 'sum')
  assert.equal([...reliabilityFactors([0, 0])], [1, 1])
})

test('one ratio of the SUM of differences; the slope has the ratio in it', () => {
  const range = { low: 0.5, high: 0.5 }
  const [now, old] = [
    [-1, -2],
    [-1.1, -2.2],
  ]
  const rho = Math.exp(0.3)
  const sequence = clippedTerm('sequence', now, old, 2, range)
  close([sequence.loss, ...sequence.slopes], [-2 * rho, 2 * rho, 2 * rho], EXACT, 'sequence')
  const token = clippedTerm('token', now, old, 2, range)
  const ratios = [Math.exp(0.1), Math.exp(0.2)]
  close(
    [...token.slopes],
    ratios.map((ratio) => 2 * ratio),
    EXACT,
    'token',
  )
})

test('clipping cuts a gradient off only where the ratio has gone the way of its advantage', () => {
  const range = { low: 0.2, high: 0.3 }
  const at = (change: number, advantage: number) => clippedTerm('sequence', [change], [0], advantage, range)
  for (const [ratio, advantage, open] of [
    [1.25, 1, true],
    [1.35, 1, false],
    [0.7, 1, true],
    [0.7, -1, false],
    [0.85, -1, true],
    [1.35, -1, true],
  ] as const) {
    const { slopes, loss, low, high } = at(Math.log(ratio), advantage)
    close([...slopes], [open ? ratio * advantage : 0], EXACT, `slope at ${ratio}, ${advantage}`)
    const bound = Math.min(1.3, Math.max(0.8, ratio))
    close([loss], [-Math.min(ratio * advantage, bound * advantage)], EXACT, 'loss')
    assert.equal([low, high], open ? [0, 0] : ratio < 1 ? [1, 0] : [0, 1])
  }
  assert.equal([...at(800, 0).slopes], [0])
})

/** B is zero: the policy is its base. */
const untrained = (adapter: Adapter): Adapter => ({
  ...adapter,
  layers: adapter.layers.map((layer) =>
    Object.fromEntries(
      Object.entries(layer).map(([name, map]) => [name, { ...map, b: new Float32Array(map.b.length) }]),
    ),
  ),
})

test('at step 0 the KL is 0 and every ratio 1, to the bit: of a new adapter, and of one that goes on', async () => {
  const { settings, completions } = await rlooCase('step')
  for (const options of [{ start: untrained }, { reference: 'start' as const }]) {
    // Groups in one piece, and cut ones, which are measured by a forward of their own.
    for (const microBatch of [4, 12, 5, 1]) {
      const { entries, steps } = await runFixed(cpu, 'untied', { ...settings, microBatch }, [completions], options)
      assert.equal([entries[0].kl, entries[0].kl_seq], [0, 0])
      // With ratios of 1 the loss is minus the mean of the advantages, added up in the order of the micro-batches.
      const order = [0, 1, 2].flatMap((group) => completions.flatMap((own, i) => (own.group === group ? [i] : [])))
      const sum = order.reduce((total, i) => total - steps[0].advantages[i], 0)
      assert.is(entries[0].loss, sum / completions.length)
    }
  }
})

test('the second step has moved away: the KL is not 0', async () => {
  const { settings, completions } = await rlooCase('step')
  const { entries } = await runFixed(cpu, 'untied', settings, [completions, completions], { start: untrained })
  assert.is(entries[0].kl_seq, 0)
  assert.ok(Math.abs(entries[1].kl_seq) > 1e-3)
})

test('micro-batches change neither groups nor advantages, and the update only by rounding', async () => {
  const { settings, completions } = await rlooCase('four')
  const runs = await Promise.all(
    [12, 4, 8, 5, 1].map((microBatch) => runFixed(cpu, 'untied', { ...settings, microBatch }, [completions])),
  )
  const [first, ...others] = runs
  for (const { steps, entries } of others) {
    close(steps[0].advantages, first.steps[0].advantages, 1e-5, 'advantages')
    for (const name of ['grad_norm', 'loss/last', 'kl', 'entropy'])
      assert.ok(Math.abs(entries[0][name] - first.entries[0][name]) < 1e-4 * Math.abs(first.entries[0][name]), name)
  }
})

test('the order of completions changes nothing: groups are by the prompt', async () => {
  const { settings, completions } = await rlooCase('step')
  const sorted = [...completions].sort((a, b) => a.group - b.group)
  const [apart, together] = await Promise.all(
    [completions, sorted].map((own) => runFixed(cpu, 'untied', settings, [own])),
  )
  assert.equal(together.adapter.layers, apart.adapter.layers)
})

test('equal prompts of two rows are groups of their own', async () => {
  const { settings, completions } = await rlooCase('step')
  const twice = completions.filter(({ group }) => group === 0).flatMap((own) => [own, { ...own, group: 9, reward: 0 }])
  const { steps } = await runFixed(cpu, 'untied', settings, [twice])
  const second = steps[0].advantages.filter((_, i) => twice[i].group === 9)
  // Equal rewards: only the KL is left, which is that of the same completions in the first group.
  const first = twice.filter(({ group }) => group === 0)
  assert.ok(Math.max(...second.map(Math.abs)) < Math.max(...first.map(({ reward }) => Math.abs(reward!))))
  close([second.reduce((sum, value) => sum + value, 0)], [0], 1e-9, 'sum')
})

test('tokens count by length, whatever their ids: the end of text within a completion, and padding, are tokens', async () => {
  const { settings, completions } = await rlooCase('step')
  // The id of the end, which many models have as padding too, stands in the middle.
  const [one, ...rest] = completions.filter(({ group }) => group === 0)
  const within = { ...one, tokens: Uint32Array.of(2, 2, 5, 0, 2), sampled: new Float32Array(5) }
  const { entries } = await runFixed(cpu, 'untied', settings, [[within, ...rest]])
  const lengths = [within, ...rest].map(({ tokens }) => tokens.length)
  assert.is(entries[0]['completions/mean_length'], lengths.reduce((sum, value) => sum + value, 0) / 4)
  const other = { ...within, tokens: Uint32Array.of(2, 2, 5, 0, 7) }
  const changed = await runFixed(cpu, 'untied', settings, [[other, ...rest]])
  assert.is.not(changed.entries[0].grad_norm, entries[0].grad_norm, 'the last token has a gradient')
})

test('a masked completion has no gradient and no KL, stays in the baseline, and its tokens are in no divisor', async () => {
  const { settings, completions } = await rlooCase('token')
  const cut = (aggregation: RlooSettings['aggregation'], truncated: RlooSettings['truncated']) =>
    cutRollout(completions, { ...settings, aggregation, truncated }, { rows: 4096 }).batches.reduce(
      (sum, { weight }) => sum + weight,
      0,
    )
  const all = completions.reduce((sum, { tokens }) => sum + tokens.length, 0)
  const ended = completions.reduce((sum, own) => sum + (own.ended ? own.tokens.length : 0), 0)
  assert.ok(ended < all)
  assert.equal([cut('token', { kind: 'kept' }), cut('token', { kind: 'masked' })], [all, ended])
  assert.equal([cut('sequence', { kind: 'kept' }), cut('sequence', { kind: 'masked' })], [12, 12])
  assert.is(cut('constant', { kind: 'masked' }), 12 * settings.maxNewTokens)
  // Other tokens in a masked completion change nothing at all; its reward changes the others' advantages.
  const base = { ...settings, normalizeAdvantages: false }
  const at = completions.findIndex((own) => !own.ended)
  const change = (by: Partial<Completion>) => completions.map((own, i) => (i === at ? { ...own, ...by } : own))
  const [plain, tokens, reward] = await Promise.all(
    [completions, change({ tokens: new Uint32Array(12).fill(9) }), change({ reward: 50 })].map((own) =>
      runFixed(cpu, 'tied', base, [own]),
    ),
  )
  assert.equal(tokens.adapter.layers, plain.adapter.layers)
  assert.is(tokens.entries[0].kl, plain.entries[0].kl)
  assert.is.not(reward.entries[0].grad_norm, plain.entries[0].grad_norm)
})

test('a batch whose completions are all masked, or all alike, makes no update and is no error', async () => {
  const { settings, completions } = await rlooCase('token')
  const masked = completions.map((own) => ({ ...own, ended: false }))
  const { entries } = await runFixed(cpu, 'tied', { ...settings, weightDecay: 0 }, [masked], { start: untrained })
  assert.equal([entries[0].loss, entries[0].grad_norm, 'kl' in entries[0]], [0, 0, false])
  const alike = completions.map((own) => ({ ...own, reward: 1 }))
  const flat = await runFixed(cpu, 'tied', { ...settings, beta: 0, truncated: { kind: 'kept' } }, [alike])
  assert.equal([flat.entries[0].loss, flat.entries[0].frac_reward_zero_std], [-0, 1])
  assert.not('kl' in flat.entries[0], 'without beta there is no reference')
})

test('KL and entropy of the log are sums over counts, not means of means', async () => {
  const { settings, completions } = await rlooCase('step')
  const run = async (own: readonly Completion[], microBatch: number | null) =>
    (await runFixed(cpu, 'untied', { ...settings, microBatch }, [own])).entries[0]
  const whole = await run(completions, null)
  const parts = await Promise.all(
    [0, 1, 2].map(async (group) => {
      const own = completions.filter((completion) => completion.group === group)
      return { own, entry: await run(own, 4) }
    }),
  )
  const tokensOf = (own: readonly Completion[]) => own.reduce((sum, { tokens }) => sum + tokens.length, 0)
  for (const name of ['kl', 'entropy']) {
    const sum = parts.reduce((total, { own, entry }) => total + entry[name] * tokensOf(own), 0)
    assert.ok(Math.abs(whole[name] / (sum / tokensOf(completions)) - 1) < 1e-6, name)
    const plain = parts.reduce((total, { entry }) => total + entry[name], 0) / 3
    assert.ok(
      Math.abs(whole[name] / plain - 1) > 1e-3,
      `${name}: lengths differ, so the mean of means is another number`,
    )
  }
})

test('clip ratios are measured: 0 with one update, whose ratios are all 1', async () => {
  const [one, four] = await Promise.all(
    ['step', 'four'].map(async (name) => {
      const { settings, completions } = await rlooCase(name)
      return (await runFixed(cpu, 'untied', settings, [completions])).entries[0]
    }),
  )
  const shown = (entry: object) =>
    Object.keys(entry).filter((key) => key.startsWith('clip_ratio') || key.endsWith('/last'))
  const ratios = ['clip_ratio/low_mean', 'clip_ratio/high_mean', 'clip_ratio/region_mean']
  assert.equal(shown(one!), ratios)
  assert.equal(
    ratios.map((name) => one![name]),
    [0, 0, 0],
  )
  assert.equal(shown(four!), ['loss/last', 'grad_norm/last', ...ratios])
  assert.ok(four!['clip_ratio/region_mean']! > 0)
})

test('the largest difference between sampling and training is in the log', async () => {
  const { settings, completions } = await rlooCase('step')
  const { entries } = await runFixed(cpu, 'untied', settings, [completions])
  // The fixture says 0 for every log-probability.
  assert.ok(entries[0]['sampling/logp_difference_max'] > 1)
})

test('settings that would make it something else are refused', async () => {
  for (const [change, message] of [
    [{ k: 1 }, /k must be a whole number of at least 2, got 1/],
    [{ k: 3 }, /batch must be a multiple of k = 3 completions, got 1024/],
    [{ topP: 0.9 }, /top-p must be 1 in training .*got 0\.9/],
    [{ topK: 50 }, /top-k must be 0/],
    [{ minP: 0.1 }, /min-p must be 0/],
    [{ repetitionPenalty: 1.1 }, /repetition-penalty must be 1/],
    [{ dropout: 0.1 }, /dropout must be 0/],
    [{ temperature: 0 }, /temperature must be a number above 0/],
    [{ beta: -1 }, /beta must be/],
    [{ clip: { low: 0, high: 1 } }, /--clip must be above 0 and at most 1/],
    [{ rewardClip: [1, 1] }, /reward-clip must be/],
    [{ reliability: 1 }, /reliability must be/],
    [{ updates: 0 }, /updates must be/],
  ] as const) {
    await fails(() => checkRloo({ ...RLOO_DEFAULTS, ...(change as Partial<RlooSettings>) }), message)
  }
  checkRloo(RLOO_DEFAULTS)
})

test("the paper's values are the defaults; presets are what TRL had and has where it is silent", () => {
  const { k, lr, schedule, rank, alpha, maxPrompt, maxNewTokens, batch, beta } = RLOO_DEFAULTS
  assert.equal(
    [k, lr, schedule, rank, alpha, maxPrompt, maxNewTokens, batch],
    [2, 1e-4, 'constant', 32, 64, 348, 512, 1024],
  )
  assert.is(beta, 0.05)
  assert.equal(RLOO_PRESETS['trl-0.9'], { temperature: 0.7, updates: 4, maxGradNorm: 0 })
  assert.equal(RLOO_PRESETS['trl-1'], { temperature: 1, updates: 1, maxGradNorm: 1 })
})

test('the device closes', () => cpu.destroy())

test.run()
