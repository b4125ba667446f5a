// npm run bench -- figure3 --policy DIR --reward DIR --prompts FILE --out DIR: the paper's Figure 3 on real text, where no truth is known:
// a policy trained by RLOO by the expectation and one by the utility, with several seeds, and a chart by the reward model's estimate.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { meanInterval } from '../src/evaluate/intervals.ts'
import { directoryTree, openDirectory, openFile } from '../src/files/disk.ts'
import { readRecords } from '../src/files/records.ts'
import { readText } from '../src/files/source.ts'
import type { StoreTree } from '../src/files/store.ts'
import type { PromptRules } from '../src/generate/prompt_rows.ts'
import { drawChart } from '../src/report/chart.ts'
import { PANEL, POLICY_COLOURS } from '../src/report/figure3_charts.ts'
import { type Curves, seedsText, worthPanels } from '../src/report/seed_curves.ts'
import { loadRewardModel } from '../src/reward/model.ts'
import { modelReward } from '../src/train/rloo/model_reward.ts'
import { encodeRlooPrompt, type RlooPrompt } from '../src/train/rloo/prompts.ts'
import { trainRloo } from '../src/train/rloo/rloo.ts'
import { openTextRules } from '../src/train/row_text.ts'
import { TAIL, tailOf, type Worth } from '../src/world/measure.ts'

const HELP = `usage: npm run bench -- figure3 --policy DIR --reward DIR --prompts FILE --out DIR [options]

  --policy DIR       fine-tuned causal model: where both policies begin, and their reference
  --adapter DIR      an adapter over it to begin with, such as models/nano-sft over models/nano; the reference is a copy of it
  --reward DIR       quantile reward model
  --prompts FILE     rows of pinball rloo: {"prompt"}, {"messages"}, or HH-RLHF's {"chosen"}
  --out DIR          trainings (as pinball rloo keeps them), figure3.svg, figure3.json
  --seeds N          repetitions of both policies (3)
  --steps N          of each training (100)
  --every N          steps that make one point of a curve (5)
  --batch N --k N    completions of a step, of a prompt (64, 2)
  --rank N --lr X --beta X --max-prompt N --max-new-tokens N   (32, 1e-4, 0.05, 348, 512)
  --lambda X         of the utility (the reward model's), rescaled to slope 1 so that one beta serves both
  --device --threads (wasm)

The same command goes on after an interrupt.`

const text = { type: 'string' } as const
const OPTIONS = {
  ...{ policy: text, adapter: text, reward: text, prompts: text, out: text, lambda: text, device: text, threads: text },
  ...{ seeds: text, steps: text, every: text, batch: text, k: text, rank: text, lr: text, beta: text },
  ...{ 'max-prompt': text, 'max-new-tokens': text, help: { type: 'boolean' as const } },
} as const

const POLICIES = ['neutral', 'risk-aware'] as const

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: OPTIONS })
  const { policy, adapter, reward, prompts, out, device: kind = 'wasm' } = values
  if (values.help || !policy || !reward || !prompts || !out || !DEVICE_KINDS.includes(kind as DeviceKind)) {
    console.error(HELP)
    process.exit(values.help ? 0 : 2)
  }
  const number = (name: Exclude<keyof typeof values, 'help'>, usual: number): number => {
    const value = Number(values[name] ?? usual)
    if (!Number.isFinite(value)) throw new Error(`figure3: --${name} must be a number, got ${values[name]}`)
    return value
  }
  const [seeds, steps, every] = [number('seeds', 3), number('steps', 100), number('every', 5)]
  const [k, rank, maxPrompt] = [number('k', 2), number('rank', 32), number('max-prompt', 348)]
  const settings = {
    ...{
      k,
      batch: number('batch', 64),
      lr: number('lr', 1e-4),
      beta: number('beta', 0.05),
      maxSteps: steps,
      maxPrompt,
    },
    maxNewTokens: number('max-new-tokens', 512),
  }
  const start = adapter ? { adapter: await openDirectory(adapter) } : { rank, alpha: 2 * rank }
  mkdirSync(out, { recursive: true })
  const files = await openDirectory(policy)
  const rules = await openTextRules(files, maxPrompt)
  const { rows, ...leftOut } = await readPrompts(prompts, { ...rules, maxPosition: Infinity }, maxPrompt)
  const threads = values.threads === undefined ? {} : { threads: number('threads', 1) }
  const device = await openDevice(kind as DeviceKind, threads)
  const model = await loadRewardModel(device, await openDirectory(reward))
  const lambda = number('lambda', model.lambda)
  const curves: Curves<Worth>[] = []
  const began = performance.now()
  for (const name of POLICIES) {
    const all: { step: number; value: Worth }[][] = []
    for (let seed = 0; seed < seeds; seed++) {
      const risk = name === 'neutral' ? ({ kind: 'expectation' } as const) : ({ kind: 'utility' } as const)
      const own = await modelReward(model, { name: 'reward', risk, lambda, rescale: name === 'risk-aware' })
      const store = directoryTree(join(out, `${name}-${seed}`))
      const { reward: last, kl_seq: kl } = await trainRloo(device, files, rows, [own], {
        ...{ ...settings, ...start, seed, store },
        onProgress: ({ step, loss }) => {
          if (loss !== null && step % every === 0)
            process.stderr.write(`\r${name}, seed ${seed}: step ${step} of ${steps}   `)
        },
      })
      console.log(`\n${name}, seed ${seed}: reward ${last?.toFixed(4)}, KL ${kl?.toFixed(2)} nats`)
      all.push(await readWorths(store, every))
    }
    curves.push({ label: name, colour: POLICY_COLOURS[name], seeds: all })
  }
  await model.destroy()
  await device.destroy()
  const ends = compareEnds(curves)
  writeFileSync(
    join(out, 'figure3.svg'),
    drawChart({
      id: 'figure3-text',
      title: 'Left tail and expectation of the rewards of a policy’s answers, by the reward model',
      subtitle: `Quantiles of each answer's distribution, averaged over ${every} steps; ${seedsText(seeds)}`,
      description: `Risk-aware less neutral at the end: left tail ${ends.tail.mean}, expectation ${ends.expectation.mean}.`,
      panels: worthPanels(curves, 'reward'),
      ...{ columns: 3, frame: PANEL, names: 'above' as const },
    }),
  )
  const result = {
    ...{
      policy,
      adapter: adapter ?? null,
      reward,
      prompts: rows.length,
      ...leftOut,
      seeds,
      lambda,
      rank,
      ...settings,
      ends,
    },
    minutes: (performance.now() - began) / 60_000,
  }
  writeFileSync(join(out, 'figure3.json'), `${JSON.stringify({ ...result, curves }, null, 1)}\n`)
  console.log(JSON.stringify(result))
}

/** Prompts of a file; those that are too long are counted, and so are dialogues of HH-RLHF whose speakers do not alternate. */
async function readPrompts(file: string, rules: PromptRules, most: number) {
  const found = { rows: [] as RlooPrompt[], dropped: 0, invalid: 0 }
  const source = await openFile(file)
  try {
    for await (const { value } of readRecords(source)) {
      try {
        const prompt = encodeRlooPrompt(value, rules)
        if (prompt.tokens.length < most) found.rows.push(prompt)
        else found.dropped++
      } catch {
        found.invalid++
      }
    }
  } finally {
    await source.close()
  }
  if (found.rows.length === 0) throw new Error(`${file}: has no prompt of fewer than ${most} tokens`)
  return found
}

/** What a log says of the rewards: means over every few steps. */
async function readWorths(store: StoreTree, every: number): Promise<{ step: number; value: Worth }[]> {
  const entries = ((await readText(store, 'log.jsonl')) ?? '')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>)
    .filter((entry) => 'reward/expectation' in entry && !('eval_reward' in entry))
  const points: { step: number; value: Worth }[] = []
  for (let from = 0; from < entries.length; from += every) {
    const some = entries.slice(from, from + every)
    const mean = (key: string) => some.reduce((sum, entry) => sum + entry[key], 0) / some.length
    const names = TAIL.map((level) => `reward/q${String(Math.round(100 * level)).padStart(2, '0')}`)
    points.push({
      step: from + some.length,
      value: { expectation: mean('reward/expectation'), quantiles: names.map(mean) },
    })
  }
  return points
}

/** Risk-aware less neutral over the last points, paired by seed. */
function compareEnds([neutral, averse]: readonly Curves<Worth>[]) {
  const last = (curves: Curves<Worth>) => curves.seeds.map((points) => points[points.length - 1].value)
  const pairs = last(averse).map((one, i) => [one, last(neutral)[i]] as const)
  return {
    tail: meanInterval(pairs.map(([one, other]) => tailOf(one) - tailOf(other))),
    expectation: meanInterval(pairs.map(([one, other]) => one.expectation - other.expectation)),
  }
}
