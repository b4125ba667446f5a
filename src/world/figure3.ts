// The paper's Figure 3 in the small world: reward models, fine-tuned policies, and what reinforcement learning makes of them, repeated with
// several seeds. Every stage is kept; the same call goes on where an earlier one was cut, and a call with more seeds adds to it.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import { memoryStore, memoryTree, type Store, type StoreTree } from '../files/store.ts'
import { openWork, type Work } from '../files/work.ts'
import { mergeAdapter } from '../llama/merge.ts'
import { loadRewardModel } from '../reward/model.ts'
import { makeBase } from './base.ts'
import { type Comparison, compareRuns } from './compare.ts'
import { drawFigure1, type Figure1 } from './figure1.ts'
import { keepFiles, readPart, writePart } from './kept_files.ts'
import type { Measures } from './measure.ts'
import { tuneWorldPolicy } from './policy.ts'
import { fitWorldReward, LEVELS } from './reward.ts'
import { checkFigure3, FIGURE3_DEFAULTS, type Figure3Settings, keptSettings, type PolicyName } from './settings.ts'
import { judgePolicy, type Point, trainPolicy } from './train_policy.ts'

/** One policy of one repetition. */
export interface Run {
  readonly seed: number
  readonly policy: PolicyName
  /** The curve: means over the answers of some steps each. */
  readonly points: readonly Point[]
  /** The policy at the end, on all prompts. */
  readonly final: Measures
  /** Answers of the policy at the end to the first prompts. */
  readonly examples: readonly { readonly prompt: string; readonly answer: string }[]
}

/** The fine-tuned policy of a repetition, where all its runs begin. */
export type Start = Omit<Run, 'policy' | 'points'>

export interface Figure3 {
  readonly settings: Figure3Settings
  readonly device: string
  /** Levels of the reward model [K]. */
  readonly levels: readonly number[]
  readonly figure1: readonly Figure1[]
  readonly starts: readonly Start[]
  readonly runs: readonly Run[]
  /** Each other policy beside the neutral one; empty where there is none. */
  readonly comparisons: readonly Comparison[]
}

/** Where the stages are kept. */
export interface Figure3Stores {
  /** The folder of the work, with the results of the stages. */
  readonly root: Store
  /** A folder for a model or a training, by a name that says what it is. */
  folder(name: string): StoreTree
}

/** What is being done, and how far it is. */
export interface Figure3Progress {
  readonly stage: 'reward model' | 'fine-tuning' | 'reinforcement learning'
  /** Repetition, from 1, of `seeds`. */
  readonly repetition: number
  readonly seeds: number
  readonly policy?: PolicyName
  /** Steps of the stage. */
  readonly done: number
  readonly total: number
  /** Share of all stages that is done. */
  readonly share: number
}

export interface Figure3Options {
  /** In memory by default. */
  readonly stores?: Figure3Stores
  /** Begins anew, whatever is kept of an earlier call. */
  readonly restart?: boolean
  readonly onProgress?: (progress: Figure3Progress) => void
  /** Takes a line about each damaged part of an earlier call. */
  readonly onNote?: (line: string) => void
  /** Stops, keeps what is finished, and throws its reason. */
  readonly signal?: AbortSignal
}

const PART_NAMES = /^((start|reward|policy)-\d+|(run-\d+-[a-z-]+)|begun-[a-z-]+-\d+|base|outputs)$/

/** The seed of the weights of the world's base, which all repetitions share. */
const BASE_SEED = 1

function openStages(
  stores: Figure3Stores,
  settings: Figure3Settings,
  device: Device,
  { restart, onNote }: Figure3Options = {},
): Promise<Work> {
  return openWork(stores.root, {
    command: 'reproduce figure3',
    settings: { ...keptSettings(settings), '--device': device.name },
    partNames: PART_NAMES,
    restart,
    onDamage: onNote,
  })
}

/** Stores in memory. */
export function memoryStores(): Figure3Stores {
  const trees = new Map<string, StoreTree>()
  return {
    root: memoryStore('figure3'),
    folder(name) {
      const tree = trees.get(name) ?? memoryTree(name)
      trees.set(name, tree)
      return tree
    },
  }
}

/**
 * Runs the experiment. The numbers of a repetition depend on the settings, its seed and the device alone. Throws where the stores hold
 * something else or work of other settings, of which the first that differs is named.
 */
export async function reproduceFigure3(
  device: Device,
  options: Partial<Figure3Settings> & Figure3Options = {},
): Promise<Figure3> {
  const { stores = memoryStores(), restart, onProgress, onNote, signal, ...given } = options
  const settings: Figure3Settings = { ...FIGURE3_DEFAULTS, ...given }
  checkFigure3(settings)
  const work = await openStages(stores, settings, device, { restart, onNote })
  const base = stores.folder('base')
  await keepFiles({ work, part: 'base', store: base }, (out) => copyFiles(makeBase(BASE_SEED), out))
  const repeated: Repeated[] = []
  for (let i = 0; i < settings.seeds; i++) {
    const meter = startMeter(settings, i, onProgress)
    repeated.push(await repeat({ device, settings, stores, work, base, seed: settings.seed + i, meter, signal }))
  }
  const runs = repeated.flatMap((one) => one.runs)
  return {
    settings,
    device: device.name,
    levels: LEVELS,
    figure1: repeated[0].start.figure1,
    starts: repeated.map(({ start: { figure1: _, ...start } }) => start),
    runs,
    comparisons: compareRuns(runs),
  }
}

/**
 * Writes texts such as a report, by the names of their files, into a store. A file that is there already is only replaced where an
 * earlier call wrote it; `stores` and settings are those of the experiment.
 */
export async function writeFigure3(
  device: Device,
  settings: Figure3Settings,
  stores: Figure3Stores,
  files: Readonly<Record<string, string>>,
  store: Store,
): Promise<void> {
  const work = await openStages(stores, settings, device)
  await keepFiles({ work, part: 'outputs', store, again: true }, async (out) => {
    for (const [file, text] of Object.entries(files)) await out.write(file, [new TextEncoder().encode(text)])
  })
}

interface Context {
  readonly device: Device
  readonly settings: Figure3Settings
  readonly stores: Figure3Stores
  readonly work: Work
  readonly base: ModelFiles
  readonly seed: number
  readonly meter: Meter
  readonly signal?: AbortSignal
}

interface Repeated {
  readonly start: Start & { readonly figure1: readonly Figure1[] }
  readonly runs: readonly Run[]
}

/** One repetition: whatever of it is kept is read, and the rest is made. */
async function repeat(context: Context): Promise<Repeated> {
  const { settings, work, seed } = context
  const parts = [`start-${seed}`, ...settings.policies.map((policy) => runPart(seed, policy))]
  if (parts.some((part) => !work.has(part))) await makeMissing(context)
  const start = (await readPart(work, parts[0])) as Repeated['start']
  const runs: Run[] = []
  for (const part of parts.slice(1)) runs.push((await readPart(work, part)) as Run)
  return { start, runs }
}

const runPart = (seed: number, policy: PolicyName): string => `run-${seed}-${policy}`

async function makeMissing({ device, settings, stores, work, base, seed, meter, signal }: Context): Promise<void> {
  const reward = stores.folder(`reward-${seed}`)
  meter('reward model', 0, 1)
  await keepFiles({ work, part: `reward-${seed}`, store: reward }, (out) =>
    fitWorldReward(device, base, seed, out, { ...settings.reward, lambda: settings.lambda }, { signal }),
  )
  const sft = stores.folder(`sft-${seed}`)
  await tuneWorldPolicy(device, base, seed, sft, settings.sft, {
    ...{ signal, restart: await firstTime(work, `begun-sft-${seed}`) },
    onProgress: ({ done, steps }) => meter('fine-tuning', done, steps),
  })
  const policy = stores.folder(`policy-${seed}`)
  await keepFiles({ work, part: `policy-${seed}`, store: policy }, async (out) => {
    await mergeAdapter(base, sft, out)
  })
  const model = await loadRewardModel(device, reward)
  try {
    const world = { device, settings, seed, policy, reward: model, signal }
    if (!work.has(`start-${seed}`)) {
      const start = { seed, ...(await judgePolicy(world, null)), figure1: await drawFigure1(model) }
      await writePart(work, `start-${seed}`, start)
    }
    for (const name of settings.policies) {
      const part = runPart(seed, name)
      if (work.has(part)) continue
      const store = stores.folder(`${name}-${seed}`)
      const points = await trainPolicy(world, name, store, {
        restart: await firstTime(work, `begun-${name}-${seed}`),
        onProgress: ({ done, steps }) => meter('reinforcement learning', done, steps, name),
      })
      await writePart(work, part, { seed, policy: name, points, ...(await judgePolicy(world, store)) })
    }
  } finally {
    await model.destroy()
  }
}

/** Whether this work begins with a folder now: what an earlier work has left in it is not gone on with. */
async function firstTime(work: Work, part: string): Promise<boolean> {
  if (work.has(part)) return false
  await writePart(work, part, true)
  return true
}

async function copyFiles(files: ModelFiles, out: Store): Promise<void> {
  for (const file of (await files.list?.()) ?? []) {
    const source = (await files.open(file))!
    await out.write(file, [await source.read(0, source.byteLength)])
    await source.close()
  }
}

type Meter = (stage: Figure3Progress['stage'], done: number, total: number, policy?: PolicyName) => void

/** Reports a repetition, from 0; a training of a policy weighs as its steps, the stages before it as so many of them. */
function startMeter(
  { seeds, steps, policies }: Figure3Settings,
  repetition: number,
  onProgress: Figure3Options['onProgress'],
): Meter {
  const BEFORE = 40
  const own = BEFORE + steps * policies.length
  return (stage, done, total, policy) => {
    const before =
      stage === 'reward model'
        ? 0
        : stage === 'fine-tuning'
          ? BEFORE * (0.4 + (0.6 * done) / total)
          : BEFORE + steps * (policies.indexOf(policy!) + done / total)
    const share = (repetition * own + before) / (seeds * own)
    onProgress?.({ stage, repetition: repetition + 1, seeds, ...(policy && { policy }), done, total, share })
  }
}
