// The experiment of Figure 3 in the small world: what it claims, with intervals over seeds; stages that are kept; its charts and its page.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { drawChart } from '../src/report/chart.ts'
import { figure3Files, figure3Text } from '../src/report/figure3.ts'
import { figure3Charts } from '../src/report/figure3_charts.ts'
import { compareRuns, EQUAL_WITHIN } from '../src/world/compare.ts'
import {
  type Figure3,
  type Figure3Options,
  memoryStores,
  type Run,
  reproduceFigure3,
  writeFigure3,
} from '../src/world/figure3.ts'
import { TAIL, tailOf } from '../src/world/measure.ts'
import { POLICY_DEFAULTS } from '../src/world/policy.ts'
import { REWARD_DEFAULTS } from '../src/world/reward.ts'
import { FIGURE3_DEFAULTS, type Figure3Settings } from '../src/world/settings.ts'
import { close, fails } from './assert.ts'

/** Large enough for the claims. */
const SMALL: Partial<Figure3Settings> = {
  policies: ['neutral', 'risk-aware'],
  steps: 30,
  samples: 8,
  sft: { ...POLICY_DEFAULTS, answers: 2000, held: 50, steps: 100 },
  reward: { ...REWARD_DEFAULTS, answers: 1500, held: 300, alpha: 1e-4 },
}

/** Large enough for nothing but the ways that the work takes. */
const TINY: Partial<Figure3Settings> = {
  seeds: 2,
  steps: 3,
  prompts: 4,
  k: 2,
  every: 2,
  samples: 1,
  sft: { ...POLICY_DEFAULTS, answers: 64, held: 8, steps: 2, batch: 8 },
  reward: { ...REWARD_DEFAULTS, answers: 80, held: 40, alpha: 1e-2 },
}

let device: Device
test.before(async () => {
  device = await openDevice('wasm')
})
test.after(() => device.destroy())

const run = (options: Partial<Figure3Settings> & Figure3Options) => reproduceFigure3(device, options)

test('risk-aware: a higher true left tail at an equal expectation, with intervals over five seeds', async () => {
  const figure = await run(SMALL)
  assert.equal([figure.starts.length, figure.runs.length, figure.settings.seeds], [5, 10, 5])
  const [{ policy, truth, estimate, higherTail }] = figure.comparisons
  assert.equal([policy, higherTail, truth.tail.values], ['risk-aware', true, 5])
  assert.ok(truth.tail.interval![0] > 0.1, `true left tail ${truth.tail.interval}`)
  assert.ok(estimate.tail.interval![0] > 0.1, `estimated left tail ${estimate.tail.interval}`)
  const [low, high] = truth.expectation.interval!
  assert.ok(low > -0.1 && high < 0.1, `true expectation ${low} to ${high}`)
  // Both learn something: each ends with a higher true expectation than the policy it began with.
  for (const { seed, policy, final, points } of figure.runs) {
    const start = figure.starts.find((other) => other.seed === seed)!.final
    const gain = final.truth.expectation - start.truth.expectation
    assert.ok(gain > 0.05, `${policy}, seed ${seed}: true expectation rises by ${gain}`)
    assert.equal(
      points.map((point) => [point.from, point.step]),
      [1, 6, 11, 16, 21, 26].map((from) => [from, from + 4]),
    )
    // At the first steps the answers are those of the fine-tuned policy.
    assert.ok(points[0].kl < points[5].kl, `KL ${points[0].kl} to ${points[5].kl}`)
    assert.is(points[0].measures.answers, 5 * FIGURE3_DEFAULTS.prompts * FIGURE3_DEFAULTS.k)
  }
  // What the reward model thinks of the answers leaves the truth: by more at the end than at the beginning.
  const drift = (all: readonly Pick<Run, 'final'>[]) =>
    all.reduce((sum, { final: { estimate, truth } }) => sum + estimate.expectation - truth.expectation, 0) / all.length
  assert.ok(drift(figure.runs) > drift(figure.starts) + 0.01, `${drift(figure.starts)} to ${drift(figure.runs)}`)
  const text = figure3Text(figure)
  assert.match(
    text,
    /risk-aware less neutral: true left tail \+0\.\d+ \[\+0\.\d+, \+0\.\d+\], .* over 5 seeds: a higher left tail/,
  )
})

test('what is kept is not made again; a cut call goes on and ends with the same numbers; more seeds are added', async () => {
  const whole = await run({ ...TINY })
  assert.equal(
    whole.runs.map(({ seed, policy }) => `${policy} ${seed}`),
    ['neutral 1', 'risk-aware 1', 'reliability-weighted 1', 'neutral 2', 'risk-aware 2', 'reliability-weighted 2'],
  )
  const stores = memoryStores()
  const places = ['reward model 1', 'fine-tuning 1', 'reinforcement learning 1 risk-aware 2', 'fine-tuning 2']
  for (const place of places) {
    const stop = new AbortController()
    const onProgress: Figure3Options['onProgress'] = ({ stage, repetition, policy, done }) => {
      const [short, long] = [`${stage} ${repetition}`, `${stage} ${repetition} ${policy} ${done}`]
      if (place === short || place === long) stop.abort(new Error(`stopped at ${place}`))
    }
    await fails(() => run({ ...TINY, stores, signal: stop.signal, onProgress }), `stopped at ${place}`)
  }
  const seen = new Set<string>()
  const onProgress: Figure3Options['onProgress'] = ({ stage, repetition }) => seen.add(`${stage} ${repetition}`)
  assert.equal(await run({ ...TINY, stores, onProgress }), whole)
  assert.not(seen.has('reward model 1'), 'the first repetition was finished')
  seen.clear()
  assert.equal(await run({ ...TINY, stores, onProgress }), whole)
  assert.equal([...seen], [], 'nothing is left to do')
  const more = await run({ ...TINY, seeds: 3, policies: ['neutral'], stores, onProgress })
  assert.equal(
    more.runs.slice(0, 2),
    whole.runs.filter(({ policy }) => policy === 'neutral'),
  )
  assert.ok(![...seen].some((stage) => !stage.endsWith('3')), `only the third is made, not ${[...seen]}`)
  await fails(
    () => run({ ...TINY, lr: 1e-3, stores }),
    /figure3.*was begun with --lr 0.003, now it is 0.001; use the same, or give --restart/,
  )
  const anew = await run({ ...TINY, lr: 1e-3, stores, restart: true })
  assert.equal(anew, await run({ ...TINY, lr: 1e-3 }))
})

test('a damaged stage is made again or named, a foreign file is left alone', async () => {
  const stores = memoryStores()
  const settings: Figure3Settings = { ...FIGURE3_DEFAULTS, ...TINY, seeds: 1, policies: ['neutral'] }
  const figure = await run({ ...settings, stores })
  await stores.root.append('run-1-neutral.part', 40, new Uint8Array([1, 2, 3]))
  const notes: string[] = []
  assert.equal(await run({ ...settings, stores, onNote: (line) => notes.push(line) }), figure)
  assert.match(notes.join(), /run-1-neutral.part is damaged; it is set aside/)
  // Files of a model: whoever changed one is told.
  await stores.root.remove('start-1.part')
  await stores.folder('policy-1').write('config.json', [new TextEncoder().encode('{}')])
  await fails(() => run({ ...settings, stores }), 'policy-1/config.json: is not what Pinball wrote there; move it away')
  await stores.folder('policy-1').remove('config.json')
  assert.equal(await run({ ...settings, stores }), figure)
  const files = figure3Files(figure)
  const out = memoryStores().root
  await out.write('report.html', [new TextEncoder().encode('mine')])
  const write = (texts: Record<string, string>) => writeFigure3(device, settings, stores, texts, out)
  await fails(() => write(files), 'figure3/report.html: is not what Pinball wrote there; move it away')
  await out.remove('report.html')
  await write(files)
  assert.equal((await out.list()).sort(), Object.keys(files).sort())
  await write({ ...files, 'report.html': 'another' })
  const source = (await out.open('report.html'))!
  assert.is(new TextDecoder().decode(await source.read(0, source.byteLength)), 'another')
})

test('comparisons are paired by seed and say what they show', () => {
  const worth = (expectation: number, tail: number) => ({ expectation, quantiles: TAIL.map(() => tail) })
  const made = (seed: number, policy: Run['policy'], expectation: number, tail: number) =>
    ({
      seed,
      policy,
      final: { truth: worth(expectation, tail), estimate: worth(expectation + 0.1, tail) },
    }) as unknown as Run
  const noise = [0.01, -0.01, 0, 0.02, -0.02]
  const runs = (gain: number, loss: number) =>
    noise.flatMap((e, i) => [
      made(i, 'neutral', 3 * i, 5 * i),
      made(i, 'risk-aware', 3 * i - loss + e, 5 * i + gain + e),
    ])
  const [good] = compareRuns(runs(0.3, 0))
  assert.equal([good.higherTail, good.equalExpectation], [true, true])
  close([good.truth.tail.mean, good.estimate.expectation.mean], [0.3, 0], 1e-12, 'differences')
  // t(4) at 97.5 % is 2.776, the standard error sqrt(0.001 / 4 / 5).
  close(
    good.truth.tail.interval!,
    [-1, 1].map((sign) => 0.3 + sign * 2.7764 * Math.sqrt(0.001 / 20)),
    1e-5,
    'interval',
  )
  const [worse] = compareRuns(runs(0.01, EQUAL_WITHIN))
  assert.equal([worse.higherTail, worse.equalExpectation], [false, false])
  assert.equal(compareRuns(runs(0.3, 0).filter(({ policy }) => policy !== 'neutral')), [])
})

/** Throws where tags are not closed in their order. */
function checkTags(text: string, what: string): void {
  const open: string[] = []
  for (const [tag, close, name, self] of text.matchAll(/<(\/?)([a-z]+)(?:\s[^<>]*?)?(\/?)>/g)) {
    if (self || ['meta'].includes(name)) continue
    if (!close) open.push(name)
    else assert.is(open.pop(), name, `${what}: ${tag}`)
  }
  assert.equal(open, [], what)
}

test('charts name themselves and all of their series; the page holds each with its numbers', async () => {
  const figure = (await run({ ...TINY, seeds: 2 })) as Figure3
  const files = figure3Files(figure)
  assert.equal(JSON.parse(files['figures.json']), JSON.parse(JSON.stringify(figure)))
  const page = files['report.html']
  checkTags(page, 'report.html')
  assert.not(/<script|<link|src=|href=|url\(/.test(page), 'the page needs nothing else')
  for (const [file, chart] of Object.entries(figure3Charts(figure))) {
    const svg = files[file]
    assert.is(svg, drawChart(chart))
    checkTags(svg, file)
    assert.not(/NaN|undefined|Infinity/.test(svg), file)
    assert.ok(page.includes(svg), `${file} is in the page`)
    assert.match(svg, /role="img" aria-labelledby="([\w-]+)-title \1-text"/)
    assert.ok(svg.includes(`<title id="${chart.id}-title">`) && svg.includes(`<desc id="${chart.id}-text">`), file)
    assert.match(svg, /@media \(prefers-color-scheme: dark\)/)
    for (const { title, series } of chart.panels) {
      for (const text of [title, ...series.map(({ label }) => label)]) assert.ok(svg.includes(`>${text}</text>`), text)
      assert.ok(page.includes(`<caption>${title}</caption>`), `numbers of ${title}`)
    }
  }
  const last = figure.runs[0].points[1].measures.truth
  const mean =
    (figure.runs[0].points[1].measures.truth.expectation + figure.runs[3].points[1].measures.truth.expectation) / 2
  assert.ok(
    page.includes(`<td>${Number(mean.toPrecision(4))}</td>`),
    `the mean ${mean} of the last point is in a table`,
  )
  assert.is(tailOf(last), last.quantiles.reduce((sum, value) => sum + value, 0) / 5)
  // One seed has no intervals.
  const one = figure3Files(await run({ ...TINY, seeds: 1 }))
  assert.not(/NaN|Infinity/.test(one['figure3-truth.svg']))
  assert.match(one['report.html'], /one seed: no intervals/)
})

test.run()
