// The cases of test/fixtures/rloo as the trainer takes them, and runs of it on fixed rollouts.
import { readFileSync } from 'node:fs'
import type { Device } from '../src/device/device.ts'
import { memoryFiles } from '../src/files/source.ts'
import { type Adapter, readAdapter } from '../src/llama/adapter_files.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { loadAdapter, NO_ADAPTER } from '../src/llama/lora_adapter.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { openModelDirectory } from '../src/reward/directory.ts'
import { AdapterParameters } from '../src/train/adapter_parameters.ts'
import { shapedReward } from '../src/train/rloo/advantages.ts'
import type { RlooEntry } from '../src/train/rloo/log.ts'
import type { Completion } from '../src/train/rloo/rollout.ts'
import { RLOO_DEFAULTS, type RlooSettings, type Truncated } from '../src/train/rloo/settings.ts'
import { type RolloutStep, rlooTask } from '../src/train/rloo/task.ts'
import { train } from '../src/train/trainer.ts'
import { folderFiles, readArrays } from './lora_fixture.ts'

const FOLDER = new URL('./fixtures/rloo/', import.meta.url)

interface CaseSettings {
  readonly model: string
  readonly temperature: number
  readonly beta: number
  readonly estimator: RlooSettings['klEstimator']
  readonly aggregation: RlooSettings['aggregation']
  readonly updates: number
  readonly clip: readonly [number, number]
  readonly lr: number
  readonly weight_decay: number
  readonly max_grad_norm: number
  readonly normalize: boolean
  readonly truncated: Truncated['kind']
  readonly value: number
  readonly clip_rewards: [number, number] | null
  readonly scale: number
  readonly bias: number
  readonly entropy_bonus: number
  readonly max_new_tokens: number
}

const index = JSON.parse(readFileSync(new URL('index.json', FOLDER), 'utf8')) as Record<string, CaseSettings>
export const RLOO_CASES = Object.keys(index)

export interface RlooCase {
  readonly model: string
  readonly settings: RlooSettings
  readonly completions: readonly Completion[]
  readonly expected: Awaited<ReturnType<typeof readArrays>>
}

/** A case: its settings, its completions in the order of the file, and what PyTorch made of them. */
export async function rlooCase(name: string): Promise<RlooCase> {
  const own = index[name]
  const expected = await readArrays(new URL(`${name}.safetensors`, FOLDER))
  const truncated = (
    own.truncated === 'kept' || own.truncated === 'masked'
      ? { kind: own.truncated }
      : { kind: own.truncated, value: own.value }
  ) as Truncated
  const settings: RlooSettings = {
    ...RLOO_DEFAULTS,
    k: 4,
    batch: 12,
    temperature: own.temperature,
    beta: own.beta,
    klEstimator: own.estimator,
    aggregation: own.aggregation,
    updates: own.updates,
    clip: { low: own.clip[0], high: own.clip[1] },
    lr: own.lr,
    weightDecay: own.weight_decay,
    maxGradNorm: own.max_grad_norm,
    normalizeAdvantages: own.normalize,
    truncated,
    rewardClip: own.clip_rewards,
    rewardScale: own.scale,
    rewardBias: own.bias,
    entropyBonus: own.entropy_bonus,
    maxNewTokens: own.max_new_tokens,
  }
  const ids = (key: string) => Uint32Array.from(expected.get(key) as Int32Array)
  const seen = new Map<number, number>()
  const completions: Completion[] = []
  for (let i = 0; expected.has(`completion_${i}`); i++) {
    const group = expected.get(`group_${i}`)![0]
    const sample = seen.get(group) ?? 0
    seen.set(group, sample + 1)
    const tokens = ids(`completion_${i}`)
    const ended = expected.get(`truncated_${i}`)![0] === 0
    const given = expected.get('rewards')![i]
    completions.push({
      ...{ group, sample, tokens, ended, prompt: ids(`prompt_${group}`), factor: 1 },
      sampled: new Float32Array(tokens.length),
      reward: shapedReward(Number.isNaN(given) ? null : given, ended, settings),
    })
  }
  return { model: own.model, settings, completions, expected }
}

export interface FixedRun {
  readonly entries: readonly RlooEntry[]
  readonly steps: readonly RolloutStep[]
  readonly adapter: Adapter
}

/** Trains on fixed rollouts, one a step; the policy begins as the case's adapter, or as `start` makes it. */
export async function runFixed(
  device: Device,
  model: string,
  settings: RlooSettings,
  rollouts: readonly (readonly Completion[])[],
  {
    start = (adapter: Adapter) => adapter,
    reference = 'base',
    rows = 4096,
  }: {
    readonly start?: (adapter: Adapter) => Adapter
    readonly reference?: 'base' | 'start'
    readonly rows?: number
  } = {},
): Promise<FixedRun> {
  const directory = await openModelDirectory(memoryFiles(model, folderFiles(`${model}/model`)))
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  try {
    const backbone = own(await openBackbone(device, directory))
    const { config } = backbone
    const output = own(await openOutputLayer(device, config, outputInfo(directory.tensors, config)!))
    const begun = start(await readAdapter(memoryFiles('adapter', folderFiles(`${model}/adapter`)), config))
    const adapter = own(new AdapterParameters(device, begun, config))
    const frozen = own(reference === 'base' ? NO_ADAPTER : loadAdapter(device, begun, config))
    const entries: RlooEntry[] = []
    const steps: RolloutStep[] = []
    const task = rlooTask(
      { device, model: backbone, output, adapter, reference: frozen.layers },
      {
        statistics: [],
        stepsPerEpoch: rollouts.length,
        rollout: async (step) => ({ completions: rollouts[step], numbers: {} }),
        finished: (step) => steps.push(step) * 0,
      },
      { ...settings, rows },
    )
    await train({
      ...{ device, task },
      settings: { ...settings, steps: rollouts.length },
      onEntry: (entry) => entries.push(entry as RlooEntry),
    })
    return { entries, steps, adapter: await adapter.read() }
  } finally {
    for (const thing of owned.reverse()) thing.destroy()
    await directory.close()
  }
}
