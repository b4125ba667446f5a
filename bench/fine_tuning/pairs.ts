// A reward model on pairs: a Bradley-Terry head on frozen features, and one with the backbone adapted by LoRA.
import { splitDialogue } from '../../src/data/fields.ts'
import { pairedBootstrap } from '../../src/evaluate/intervals.ts'
import { type Scores, scorePairFeatures, scoreQuestions } from '../../src/evaluate/pair_scores.ts'
import { pairAccuracy, pairCredits } from '../../src/evaluate/pairs.ts'
import { readQuestions } from '../../src/evaluate/questions.ts'
import { directoryStore, directoryTree, openDirectory, openFile } from '../../src/files/disk.ts'
import { recordsOf } from '../../src/files/records.ts'
import { joinBytes, type ModelFiles, memoryFiles } from '../../src/files/source.ts'
import { newAdapterConfig } from '../../src/llama/adapter_config.ts'
import { encodeAdapter } from '../../src/llama/adapter_files.ts'
import { parseLlamaConfig } from '../../src/llama/config.ts'
import type { Checkpoint } from '../../src/reward/checkpoint.ts'
import { openModelDirectory } from '../../src/reward/directory.ts'
import { makeFeatures } from '../../src/reward/feature_files/make.ts'
import { readFeatureRows } from '../../src/reward/feature_files/rows.ts'
import { loadFeatureModel } from '../../src/reward/features.ts'
import { openHeads } from '../../src/reward/heads.ts'
import { loadRewardModel } from '../../src/reward/model.ts'
import { openPairs, type PairFile } from '../../src/reward/pair_file.ts'
import type { Message } from '../../src/text/chat.ts'
import { startAdapter } from '../../src/train/adapter_start.ts'
import { encodePreferenceRow, encodePreferenceRows } from '../../src/train/preference_rows.ts'
import { trainBradleyTerry } from '../../src/train/recipes.ts'
import { trainRewardModel } from '../../src/train/reward_model.ts'
import { openTextRules, type TextRules } from '../../src/train/row_text.ts'
import { type Run, readLines, split, teller } from './run.ts'

const SETS = ['helpful-base', 'helpful-rejection-sampled', 'harmless-base']

interface Pair {
  readonly prompt: readonly Message[]
  readonly chosen: readonly Message[]
  readonly rejected: readonly Message[]
  readonly subset: string
  readonly [field: string]: unknown
}

/** Dialogues that differ in their last message only, both sides no longer than the limit. */
async function readPairs(folder: string, rules: TextRules): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (const subset of SETS) {
    for (const row of await readLines<{ chosen: string; rejected: string }>(folder, `${subset}.test.jsonl.gz`)) {
      const [chosen, rejected] = [splitDialogue(row.chosen), splitDialogue(row.rejected)]
      if (chosen?.at(-1)?.role !== 'assistant' || rejected?.at(-1)?.role !== 'assistant') continue
      const [before, other] = [chosen.slice(0, -1), rejected.slice(0, -1)]
      if (before.length === 0 || JSON.stringify(before) !== JSON.stringify(other)) continue
      if (chosen.at(-1)!.content === rejected.at(-1)!.content) continue
      const pair = { prompt: before, chosen: [chosen.at(-1)!], rejected: [rejected.at(-1)!], subset }
      const tokens = encodePreferenceRow(pair, rules)
      if (Math.max(tokens.chosen.length, tokens.rejected.length) <= rules.maxLength) pairs.push(pair)
    }
  }
  return pairs
}

export async function runPairs(
  run: Run,
  folder: string,
  sizes: { readonly pairs: number; readonly held: number; readonly maxLength: number },
) {
  const { device, files, seed } = run
  const rules = await openTextRules(files, sizes.maxLength)
  const all = await readPairs(folder, rules)
  const first = ({ prompt }: Pair) => prompt[0]!.content
  const { training, held } = split(all, first, seed, { training: sizes.pairs, held: sizes.held })
  console.error(`pairs: ${training.length} of ${all.length} pairs, ${held.length} held out`)
  return withFeatures(run, 'training', training, (trained) =>
    withFeatures(run, 'held_out', held, async (measured) => {
      const { settings, weights } = await chooseHead(run, trained)
      const heads = openHeads(device, weights, 'frozen head')
      const frozen = await scorePairFeatures(device, heads, measured)
      heads.destroy()
      const { tuned, adapted } = await adapt(run, rules, weights, training, held)
      const [a, b, longer] = [sidesOf(adapted), sidesOf(frozen), lengthScores(held)]
      const subsets = held.map(({ subset }) => subset)
      return {
        ...{ pairs: training.length, held: held.length, maxLength: sizes.maxLength, ...tuned },
        adapted: pairAccuracy(...a, subsets),
        frozen: { ...pairAccuracy(...b, subsets), settings },
        longer_answer: pairAccuracy(...longer, subsets),
        adapted_less_frozen: pairedBootstrap(pairCredits(...a), pairCredits(...b)),
        adapted_less_longer: pairedBootstrap(pairCredits(...a), pairCredits(...longer)),
      }
    }),
  )
}

/** Trains with the frozen head to begin with, and scores the held-out pairs. */
async function adapt(
  run: Run,
  rules: TextRules,
  weights: Checkpoint,
  training: readonly Pair[],
  held: readonly Pair[],
) {
  const { device, files, adapter: settings } = run
  const { rows } = await encodePreferenceRows(recordsOf(training), rules)
  const lora = await run.folder('pairs/lora')
  const begin = performance.now()
  const { steps, parameters, num_tokens, loss } = await trainRewardModel(device, files, rows, [], {
    ...{ ...settings, adapter: await beginWith(run, weights), store: directoryTree(lora), onProgress: teller('pairs') },
  })
  const seconds = Math.round((performance.now() - begin) / 1000)
  const model = await loadRewardModel(device, files, { adapter: await openDirectory(lora) })
  try {
    const questions = readQuestions([...recordsOf(held)], 'pairs')
    const adapted = await scoreQuestions(model, questions, { onProgress: told('scores with the adapter') })
    return { tuned: { steps, parameters, tokens: num_tokens, seconds, loss }, adapted }
  } finally {
    await model.destroy()
  }
}

/** A new adapter with a head that is trained already, as files. */
async function beginWith({ files, adapter, seed }: Run, { regression }: Checkpoint): Promise<ModelFiles> {
  const directory = await openModelDirectory(files)
  try {
    const config = parseLlamaConfig(directory.config, files.name)
    const { rank, alpha } = adapter as { readonly rank: number; readonly alpha: number }
    const json = newAdapterConfig({ task: 'SEQ_CLS', rank, alpha, targets: 'all-linear', dropout: 0, base: files.name })
    const start = { ...startAdapter(json, config, seed), score: { labels: 1, weight: regression.weight } }
    const parts = encodeAdapter(start, config).map(({ file, chunks }) => [file, joinBytes(chunks)] as const)
    return memoryFiles('the adapter that training begins with', Object.fromEntries(parts))
  } finally {
    await directory.close()
  }
}

type Sides = [Float64Array, Float64Array]

const sidesOf = ({ questions }: Scores): Sides =>
  [0, 1].map((side) => Float64Array.from(questions, ({ scores }) => scores[side]!)) as Sides

/** What preferring the longer answer comes to, in characters. */
const lengthScores = (pairs: readonly Pair[]): Sides =>
  (['chosen', 'rejected'] as const).map((side) =>
    Float64Array.from(pairs, (pair) => pair[side][0]!.content.length),
  ) as Sides

const told =
  (what: string) =>
  ({ done, rows }: { readonly done: number; readonly rows: number }): void =>
    console.error(`pairs: ${what}, ${done} of ${rows}`)

/** Makes features of pairs, unless they are there, and opens them. */
async function withFeatures<T>(
  { device, files, folder }: Run,
  name: string,
  pairs: readonly Pair[],
  use: (features: PairFile) => Promise<T>,
): Promise<T> {
  const path = await folder('pairs/features')
  const partial = await folder(`pairs/features/${name}.partial`)
  const model = await loadFeatureModel(device, files)
  try {
    await makeFeatures(model, await readFeatureRows(recordsOf(pairs)), {
      ...{ store: directoryStore(path), file: `${name}.safetensors`, partial: directoryStore(partial) },
      onProgress: told(`features ${name}`),
    })
  } finally {
    await model.destroy()
  }
  const source = await openFile(`${path}/${name}.safetensors`)
  try {
    return await use(await openPairs([source]))
  } finally {
    await source.close()
  }
}

const RATES = [1e-4, 3e-4, 1e-3, 3e-3]
const EPOCHS = [5, 20, 60]

/** A Bradley-Terry head with rate and epochs that do best on a fifth of the training prompts, then trained on all of them. */
async function chooseHead({ device, seed }: Run, trained: PairFile) {
  const shared = { batch: 64, weightDecay: 0.01, seed }
  const tried = []
  for (const lr of RATES)
    for (const epochs of EPOCHS) {
      const { epochs: curve } = await trainBradleyTerry(device, trained, { ...shared, lr, epochs, validation: 0.2 })
      const { validation_loss, validation_accuracy } = curve.at(-1)!
      tried.push({ lr, epochs, validation_loss, validation_accuracy })
    }
  const [best] = tried.sort((one, other) => one.validation_loss! - other.validation_loss!)
  console.error(`pairs: frozen head ${JSON.stringify(best)}`)
  const { lr, epochs } = best!
  const { checkpoint } = await trainBradleyTerry(device, trained, { ...shared, lr, epochs, validation: 0 })
  return { settings: { ...shared, ...best }, weights: checkpoint }
}
