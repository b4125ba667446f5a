// The reward model: rows to reward distributions, by backbone, heads, gate and mixture.
//
// Source: QRM, sections 3.4 and 3.5, and the published forward passes; see heads.ts for what is computed from the states.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { Slot } from '../llama/slot.ts'
import type { BosPolicy } from '../text/chat.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { adaptedCheckpoint, type Checkpoint, checkpointOf } from './checkpoint.ts'
import { openFor } from './directory.ts'
import {
  type Adapted,
  adaptedParts,
  type Backbone,
  type FeatureModel,
  loadBackbone,
  type ModelOptions,
  type RunOptions,
} from './features.ts'
import { type HeadOptions, type HeadScore, type HeadScoreOptions, type Heads, openHeads } from './heads.ts'
import { headsFor } from './heads_for.ts'
import { RewardDistribution } from './reward_distribution.ts'
import { checkLambda } from './risk.ts'
import { type EncodedRow, encodeRow, encodeRows, type Row } from './rows.ts'
import { together } from './together.ts'

export interface Score extends HeadScore {
  /** Length of the row in tokens. */
  readonly tokens: number
  /**
   * The quantiles in ascending order, with what may be asked of them. It is no part of the JSON of a score, nor of a copy that goes
   * to another thread: there `new RewardDistribution(score.quantiles, model.levels)` makes it again.
   */
  readonly distribution: RewardDistribution
}

export interface RewardModel extends FeatureModel {
  readonly config: LlamaConfig
  readonly tokenizer: Tokenizer | null
  /** Quantile levels [K]. */
  readonly levels: readonly number[]
  /** Names of the attributes [M]. */
  readonly attributes: readonly string[]
  /** Of BOS where rows of text are encoded. */
  readonly bos: BosPolicy
  /** Of the utility, where `score` is given no other. */
  readonly lambda: number
  /** Whether a conformal calibration is applied to the quantiles: not under an adapter, which changes what it was made for. */
  readonly calibrated: boolean
  /**
   * Scores rows, in their order. Throws `row N: ...` on the first row that cannot be scored, before any is computed. Calls that wait
   * at the same time are computed together, which changes no bit.
   */
  score(rows: readonly Row[], options?: ScoreOptions): Promise<Score[]>
}

export interface ScoreOptions extends RunOptions, Omit<HeadScoreOptions, 'indices'> {
  /** Called with the state [D] of each row that the heads read, in no order; `row` counts from 0. */
  readonly onState?: (row: number, state: Float32Array) => void
}

export interface RewardModelOptions {
  /** A model directory whose heads stand in the place of the model's own: those of "pinball fit" or "gate", without a backbone. */
  readonly heads?: ModelFiles | null
}

/** Loads a model directory in one of the layouts of layouts.ts. Throws on whatever is missing or damaged, naming file and tensor. */
export async function loadRewardModel(
  device: Device,
  files: ModelFiles,
  options: ModelOptions & HeadOptions & RewardModelOptions = {},
): Promise<RewardModel> {
  return openFor(files, async (directory) => {
    const { adapter: own = null } = options
    const given = options.heads ? await headsFor(files, options.heads) : null
    // Heads are small and most often what is wrong.
    const checkpoint = given ?? (own === null ? await checkpointOf(directory) : null)
    const backbone = await loadBackbone(device, directory, options)
    const open = async (files: ModelFiles | null, known: Checkpoint | null = null): Promise<Scoring> => {
      const adapted = await backbone.adapt(files)
      try {
        const { adapter } = adapted
        const found =
          known ?? given ?? (await (adapter ? adaptedCheckpoint(directory, adapter) : checkpointOf(directory)))
        const heads = openHeads(device, found, directory.name, options)
        const destroy = (): void => {
          adapted.destroy()
          heads.destroy()
        }
        return { ...adapted, heads, join: together(), destroy }
      } catch (error) {
        adapted.destroy()
        throw error
      }
    }
    try {
      return rewardModel(backbone, new Slot(await open(own, checkpoint)), open)
    } catch (error) {
      await backbone.destroy()
      throw error
    }
  })
}

/** What a call of `score` computes with. */
interface Scoring extends Adapted {
  readonly heads: Heads
  /** Calls are computed together under one adapter only. */
  readonly join: Join
}

interface CountedRow {
  readonly row: EncodedRow
  /** In tokens. */
  readonly length: number
}

type Join = ReturnType<typeof together<CountedRow, Score>>

function rewardModel(
  backbone: Backbone,
  slot: Slot<Scoring>,
  open: (files: ModelFiles | null) => Promise<Scoring>,
): RewardModel {
  const { device, config, rules, name, tokenizer } = backbone
  const { levels, attributes, lambda: usual, needsPrompt } = slot.now.heads
  const model: RewardModel = {
    name,
    device,
    config,
    tokenizer,
    levels,
    attributes,
    bos: rules.bos,
    lambda: usual,
    get calibrated() {
      return slot.now.heads.calibrated
    },
    encode: (row, settings) => encodeRow(row, rules, settings?.gate && needsPrompt),
    ...adaptedParts(backbone, slot, () => model),
    async adapter(files) {
      slot.set(await open(files))
    },
    async score(rows, { lambda = usual, rearrange = false, share = true, signal, onProgress, onState } = {}) {
      checkLambda(lambda)
      signal?.throwIfAborted()
      const encoded = encodeRows(rows, rules, needsPrompt)
      const call = { rows: encoded.map((row) => ({ row, length: row.input_ids.length })), signal, onProgress }
      return slot.use((own) => {
        // States are for one caller alone.
        const join: Join = onState ? together() : own.join
        return join([lambda, rearrange, share].join(), call, (take, { signal, lengthOf, nameOf }, give) =>
          backbone.run(
            () => take().map(({ row }) => row),
            { gate: needsPrompt, adapted: own, share, signal },
            async ({ indices, last, prompt }) => {
              const scores = await own.heads.score(last, prompt, { lambda, rearrange, indices: indices.map(nameOf) })
              const states = onState ? await last.readF32() : null
              for (const [b, index] of states ? indices.entries() : [])
                onState!(nameOf(index), states!.subarray(b * config.hidden, (b + 1) * config.hidden))
              const results = scores.map((score, b) => withDistribution(score, lengthOf(indices[b]!), levels))
              give(new Map(results.map((score, b) => [indices[b]!, score])))
            },
          ),
        )
      })
    },
    async destroy() {
      await backbone.destroy()
      slot.close()
    },
  }
  return model
}

function withDistribution(score: HeadScore, tokens: number, levels: readonly number[]): Score {
  // Made when it is asked for, and not listed among the fields, which are the JSON of a score.
  let made: RewardDistribution | null = null
  return Object.defineProperty({ ...score, tokens }, 'distribution', {
    get: () => {
      made ??= new RewardDistribution(score.quantiles, levels)
      return made
    },
  }) as Score
}
