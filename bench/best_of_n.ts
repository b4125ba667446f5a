// npm run bench -- best_of_n --data DIR: what a ranking by a reward model is worth where the win probability of every sample is known.
// Of the samples of one policy for each prompt, the best by each ranking, and by rules that need no model.
//
// Data: bon16.jsonl.gz, rows of "instruction", "outputs" (16 samples of Tulu-2-DPO-13B for the prompts of AlpacaEval) and "p_wins", the
// probability that each of the first 11 wins against GPT-3.5-turbo by the judgement of GPT-4-turbo, collected from reward-bench's
// best-of-n evaluation.
import { existsSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { randomBits } from '../src/data/random.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { type PairedDifference, pairedBootstrap } from '../src/evaluate/intervals.ts'
import { leftTail } from '../src/evaluate/left_tail.ts'
import { openDirectory, openFile } from '../src/files/disk.ts'
import { readRecords } from '../src/files/records.ts'
import { loadRewardModel, type RewardModel, type Score } from '../src/reward/model.ts'
import type { EncodedRow } from '../src/reward/rows.ts'
import { parseScoreKind, pointScore } from '../src/reward/scoring.ts'
import { renderChat } from '../src/text/chat.ts'
import { table } from './measure.ts'

const HELP = `usage: npm run bench -- best_of_n --data DIR [options]

  --data DIR           folder with bon16.jsonl.gz
  --model DIR          the reward model (models/nano)
  --prompts N          drawn by a seed from those whose samples the model takes (100)
  --device, --threads  where (wasm)`

/** Those that have been judged. */
const SAMPLES = 11
const RANKINGS = ['expectation', 'utility', 'certainty-equivalent', 'cvar:0.1', 'cvar:0.25']
const QUANTILES = ['quantile:0.05', 'quantile:0.25', 'quantile:0.5', 'quantile:0.75', 'quantile:0.95']

interface Prompt {
  readonly rows: readonly EncodedRow[]
  readonly lengths: readonly number[]
  readonly wins: readonly number[]
}

/** The first prompts of an order drawn by a seed, and how many are left out because a sample is too long for the model. */
async function readPrompts(model: RewardModel, path: string, count: number) {
  const records: { readonly draw: number; readonly value: Readonly<Record<string, unknown>> }[] = []
  const source = await openFile(path)
  try {
    for await (const { value } of readRecords(source)) {
      records.push({ draw: randomBits(1, 0, records.length), value })
    }
  } finally {
    await source.close()
  }
  records.sort((a, b) => a.draw - b.draw)
  const prompts: Prompt[] = []
  let tooLong = 0
  for (const { value } of records) {
    if (prompts.length === count) break
    // Samples that nobody has judged have null.
    const wins = (value.p_wins as (number | null)[]).slice(0, SAMPLES)
    if (!wins.every((win) => typeof win === 'number'))
      throw new Error(`bench: ${path}: a sample has no win probability`)
    const outputs = (value.outputs as string[]).slice(0, SAMPLES)
    const conversations = outputs.map((content) => [
      { role: 'user', content: String(value.instruction) },
      { role: 'assistant', content },
    ])
    const lengths = conversations.map((own) => renderChat(model.tokenizer!, own, { bos: model.bos }).length)
    if (Math.max(...lengths) > model.config.maxPosition) {
      tooLong++
      continue
    }
    const rows = conversations.map((messages) => model.encode({ messages }, { gate: true }))
    prompts.push({ rows, lengths: outputs.map(({ length }) => length), wins })
  }
  return { prompts, tooLong }
}

const firstLargest = (values: readonly number[]): number => values.indexOf(Math.max(...values))
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

export async function main(args: string[]): Promise<void> {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args,
    options: {
      ...{ data: text, threads: text, help: { type: 'boolean' } },
      model: { type: 'string', default: 'models/nano' },
      prompts: { type: 'string', default: '100' },
      device: { type: 'string', default: 'wasm' },
    },
  })
  if (values.help) return console.log(HELP)
  const count = Number(values.prompts)
  if (!(Number.isSafeInteger(count) && count > 1))
    throw new Error(`bench: --prompts must be a whole number above 1, got ${values.prompts}`)
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  if (values.data === undefined || !existsSync(join(values.data, 'bon16.jsonl.gz')))
    throw new Error('bench: best_of_n needs data that is not part of the project: --data FOLDER with bon16.jsonl.gz')
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const model = await loadRewardModel(device, await openDirectory(values.model))
  const { prompts, tooLong } = await readPrompts(model, join(values.data, 'bon16.jsonl.gz'), count)
  console.error(`${prompts.length} prompts, ${tooLong} left out because a sample is longer than the model takes`)
  const scores: Score[][] = []
  const begin = performance.now()
  let tokens = 0
  for (const { rows } of prompts) {
    scores.push(await model.score(rows))
    tokens += rows.reduce((sum, { input_ids }) => sum + input_ids.length, 0)
    const seconds = (performance.now() - begin) / 1000
    if (scores.length % 20 === 0)
      console.error(`${scores.length} of ${prompts.length} prompts, ${Math.round(tokens / seconds)} tokens a second`)
  }

  const everyone = prompts.map(({ wins }) => mean(wins))
  const pick = (choice: (prompt: Prompt, i: number) => number) => prompts.map((own, i) => own.wins[choice(own, i)]!)
  const ranked = (name: string) => {
    const kind = parseScoreKind(name)
    return (_: Prompt, i: number) =>
      firstLargest(scores[i]!.map((score) => pointScore(kind, score, model.levels, model.lambda)))
  }
  const ways: [string, number[]][] = [
    ['mean of all samples', everyone],
    ['best of them', pick(({ wins }) => firstLargest(wins))],
    ['the longest', pick(({ lengths }) => firstLargest(lengths))],
    ...[...RANKINGS, ...QUANTILES].map((name): [string, number[]] => [name, pick(ranked(name))]),
  ]
  const results = ways.map(([name, wins]) => {
    const { difference, interval, p } = pairedBootstrap(wins, everyone)
    return { name, win: mean(wins), difference, interval, p }
  })
  const averse = pairedBootstrap(pick(ranked('cvar:0.1')), pick(ranked('expectation')))
  const tail = leftTail(
    scores.map((own, i) => ({
      scores: own,
      chosen: ranked('cvar:0.1')(prompts[i]!, i),
      expected: ranked('expectation')(prompts[i]!, i),
    })),
    model.levels,
  )
  await model.destroy()
  await device.destroy()

  const range = ([low, high]: PairedDifference['interval']) => `${low.toFixed(3)} to ${high.toFixed(3)}`
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  console.log(`${values.model}: ${prompts.length} prompts, ${SAMPLES} samples each, ${tokens} tokens; ${machine}`)
  const lines = results.map(({ name, win, difference, interval, p }) => [
    ...[name, win.toFixed(3), difference.toFixed(3), range(interval), p.toFixed(4)],
  ])
  console.log(table(['chosen by', 'win probability', 'beyond the mean', '95 % interval', 'p'], lines))
  console.log(`cvar:0.1 less expectation: ${averse.difference.toFixed(3)} (${range(averse.interval)})`)
  console.log(
    JSON.stringify({
      ...{ date: new Date().toISOString().slice(0, 10), machine, model: values.model },
      ...{ prompts: prompts.length, tooLong, samples: SAMPLES, tokens, lambda: model.lambda },
      ...{ results, cvar_less_expectation: { difference: averse.difference, interval: averse.interval }, tail },
    }),
  )
}
