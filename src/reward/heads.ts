// Heads and gate on a device: states of rows to reward distributions. What a reward model does behind its backbone.
//
// Source: the published forward passes. With A [M, K] the heads' values at the last token (and the calibration added), g [M] the weights
// of the attributes and T the transform matrix:
//   A'[j, k] = sum over i of A[i, k] T[i, j];  E'[j] = mean over k of A'[j, k];  score = sum over j of g[j] E'[j]
//   quantiles[k] = sum over j of g[j] A'[j, k], divided by M where the manifest says "mixture": "mean"
// In ArmoRM K = 1, and a classifier is one attribute of weight 1. Heads and gate run in f32 on the device, mixing in f64. Quantiles are
// given as they come, in no order (the paper does not sort them either) unless `rearrange` is asked for.
import type { Device } from '../device/device.ts'
import { type Tensor, VIEW_ALIGNMENT } from '../device/tensor.ts'
import type { ModelFiles } from '../files/source.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import { expectation, type Mixture, mix, rearrange } from './distribution.ts'
import { checkRow } from './features.ts'
import { Gate } from './gating.ts'
import type { Layout } from './layouts.ts'
import { type FixedWeights, orderWeights, type Rewards } from './manifest.ts'
import { Regression } from './regression.ts'
import { checkLambda, utility } from './risk.ts'

export interface AttributeScore {
  /** mean over k of the quantiles */
  readonly expectation: number
  /** Values [K], debiased or raw: see `HeadOptions.rewards`. */
  readonly quantiles: number[]
}

export interface HeadScore {
  /** sum over attributes of weight and debiased expectation; the model's point estimate */
  readonly score: number
  /** mean over k of the quantiles: the score, or the score / M under the mixture `mean` */
  readonly expectation: number
  /** -mean over k of exp(-lambda quantiles[k]) */
  readonly utility: number
  /** Values of the mixture [K] at the model's levels. */
  readonly quantiles: number[]
  readonly attributes: Record<string, AttributeScore>
  /** Weight of each attribute. */
  readonly gate: Record<string, number>
}

/** Switches for what checkpoints do in different ways. */
export interface HeadOptions {
  /** Default: the manifest's. */
  readonly mixture?: Mixture
  /** Which values the attributes of a score show; default: the manifest's, else debiased in a QRM and raw in ArmoRM. */
  readonly rewards?: Rewards
  /** Whether the transform matrix is applied; default true. */
  readonly debias?: boolean
  /** Whether a conformal calibration is applied where there is one; default true. */
  readonly calibration?: boolean
  /** Fixed weights of the attributes instead of the gate; default: the manifest's. */
  readonly weights?: FixedWeights
}

export interface HeadScoreOptions {
  /** Of the utility, 0 or more; default: the model's. */
  readonly lambda?: number
  /**
   * Whether to sort the quantiles of each attribute, and those of the mixture, into ascending order before anything is computed
   * from them; default false. The point estimate, expectations and utility do not depend on the order, up to their last bits.
   */
  readonly rearrange?: boolean
  /** What errors call the rows: their numbers from 0 [B]. */
  readonly indices?: readonly number[]
}

export interface Heads {
  readonly layout: Layout
  /** D */
  readonly hidden: number
  /** Quantile levels [K]. */
  readonly levels: readonly number[]
  /** [M] */
  readonly attributes: readonly string[]
  readonly lambda: number
  /** Whether the state at the end of the prompt is needed. */
  readonly needsPrompt: boolean
  /** Whether a calibration is applied. */
  readonly calibrated: boolean
  /** Scores of states at the last token [B, D] and at the end of the prompt [B, D] (null where it is not needed). */
  score(last: Tensor, prompt: Tensor | null, options?: HeadScoreOptions): Promise<HeadScore[]>
  /** Quantile values [B, M K] of states [B, D], calibrated, neither debiased nor mixed. */
  values(last: Tensor): Promise<Float32Array>
  destroy(): void
}

/** Loads the heads of a model directory, with a backbone or without. Throws on whatever is missing, unexpected or damaged. */
export async function loadHeads(device: Device, files: ModelFiles, options: HeadOptions = {}): Promise<Heads> {
  return openHeads(device, await readCheckpoint(files), files.name, options)
}

/** Puts the heads of a checkpoint on a device; `name` is what errors call the model. */
export function openHeads(device: Device, checkpoint: Checkpoint, name: string, options: HeadOptions = {}): Heads {
  const { manifest, layout, calibration } = checkpoint
  const { attributes, levels, lambda: usual } = manifest
  const outputs = attributes.length * levels.length
  const hidden = checkpoint.regression.weight.length / outputs
  const fixed = options.weights ?? manifest.weights ?? (layout === 'classifier' ? 'mean' : null)
  const weights = fixed && orderWeights(fixed, attributes, `${name}: weights`)
  if (weights === null && checkpoint.gate === null)
    throw new Error(`${name}: has no gate; give weights for its attributes`)
  const offsets = options.calibration === false ? null : (calibration?.offsets ?? null)
  const settings: Mixing = {
    attributes,
    levels,
    transform: options.debias === false ? null : checkpoint.transform,
    mixture: options.mixture ?? manifest.mixture,
    raw: (options.rewards ?? manifest.rewards ?? (layout === 'armorm' ? 'raw' : 'debiased')) === 'raw',
  }
  const owned: { destroy(): void }[] = []
  try {
    const regression = new Regression(device, checkpoint.regression, hidden)
    owned.push(regression)
    const gate = weights === null ? new Gate(device, checkpoint.gate!, hidden) : null
    if (gate) owned.push(gate)
    const calibrate = (all: Float32Array) => {
      if (offsets) for (let i = 0; i < all.length; i++) all[i] += offsets[i % outputs]
      return all
    }
    // Quantile values [B, M K] and, of a prompt's states, the gate's weights [B, M] in one tensor, so that both are one read.
    const compute = async (last: Tensor, prompt: Tensor | null) => {
      const rows = last.shape[0]
      const size = rows * outputs
      const begin = prompt ? Math.ceil((size * 4) / VIEW_ALIGNMENT) * (VIEW_ALIGNMENT / 4) : size
      const both = device.tensor([prompt ? begin + rows * attributes.length : size], { label: 'values and weights' })
      try {
        regression.forward(last, both.view([rows, outputs]))
        if (prompt) gate!.forward(prompt, both.view([rows, attributes.length], { offset: begin }))
        const read = await both.readF32()
        return { all: calibrate(read.subarray(0, size)), shares: read.subarray(begin) }
      } finally {
        both.destroy()
      }
    }
    return {
      layout,
      hidden,
      levels,
      attributes,
      lambda: usual,
      needsPrompt: gate !== null,
      calibrated: offsets !== null,
      values: async (last) => (await compute(last, null)).all,
      async score(last, prompt, { lambda = usual, rearrange: sorted = false, indices } = {}) {
        checkLambda(lambda)
        const rows = last.shape[0]
        if (gate && prompt === null) throw new Error(`${name}: states at the end of the prompts are needed, got none`)
        const { all, shares } = await compute(last, gate && prompt)
        const fixed = () =>
          Float32Array.from({ length: rows * attributes.length }, (_, i) => weights![i % attributes.length])
        const places = indices ?? Array.from({ length: rows }, (_, i) => i)
        return describe(all, gate ? shares : fixed(), places, settings, { lambda, sorted })
      },
      destroy() {
        for (const part of owned.splice(0)) part.destroy()
      },
    }
  } catch (error) {
    for (const part of owned) part.destroy()
    throw error
  }
}

interface Mixing {
  readonly attributes: readonly string[]
  readonly levels: readonly number[]
  readonly transform: Float32Array | null
  readonly mixture: Mixture
  readonly raw: boolean
}

/** Mixes and measures: values [B, M, K] and weights [B, M] to scores. `indices` names the rows in errors. */
function describe(
  values: Float32Array,
  weights: Float32Array,
  indices: readonly number[],
  { attributes: names, levels, transform, mixture, raw }: Mixing,
  { lambda, sorted }: { readonly lambda: number; readonly sorted: boolean },
): HeadScore[] {
  const M = names.length
  const K = levels.length
  for (const [b, row] of indices.entries()) {
    checkRow(values.subarray(b * M * K, (b + 1) * M * K), row, 'quantile values')
    checkRow(weights.subarray(b * M, (b + 1) * M), row, 'gate weights')
  }
  const mixed = mix({ values, gate: weights, transform, objectives: M, levels: K, mixture })
  const ordered = (quantiles: Float64Array) => (sorted ? rearrange(quantiles) : quantiles)
  const shown = raw ? Float64Array.from(values) : mixed.debiased
  return indices.map((_, b) => {
    const quantiles = ordered(mixed.quantiles.subarray(b * K, (b + 1) * K))
    const attribute = (j: number): AttributeScore => {
      const at = (b * M + j) * K
      const own = ordered(shown.subarray(at, at + K))
      return { expectation: expectation(own), quantiles: Array.from(own) }
    }
    return {
      score: mixed.scores[b],
      expectation: expectation(quantiles),
      utility: utility(quantiles, lambda),
      quantiles: Array.from(quantiles),
      attributes: Object.fromEntries(names.map((name, j) => [name, attribute(j)])),
      gate: Object.fromEntries(names.map((name, j) => [name, weights[b * M + j]])),
    }
  })
}
