// The reward model: rows to reward distributions, by backbone, quantile heads, gate and mixture.
//
// Source: QRM, sections 3.4 and 3.5, and its published forward pass. With A [M, K] the heads' values at the last token, g [M]
// the gate's weights at the end of the prompt, and T the transform matrix:
//   A'[j, k] = sum over i of A[i, k] T[i, j];  E'[j] = mean over k of A'[j, k];  score = sum over j of g[j] E'[j]
//   quantiles[k] = sum over j of g[j] A'[j, k], divided by M where the manifest says "mixture": "mean"
// Heads and gate run in f32 on the device, mixing and risk in f64. Quantiles are given as they come, in no order (the paper
// does not sort them either) unless `rearrange` is asked for; g adds up to the checkpoint's logit scale.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import type { LlamaConfig } from '../llama/config.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import { expectation, mix, rearrange } from './distribution.ts'
import {
  checkRow,
  extractFeatures,
  type FeatureModel,
  loadBackbone,
  type ModelOptions,
  type RunOptions,
} from './features.ts'
import { Gate } from './gating.ts'
import { Regression } from './regression.ts'
import { checkLambda, utility } from './risk.ts'
import { encodeRow, encodeRows, type Row } from './rows.ts'

export interface AttributeScore {
  /** mean over k of the quantiles */
  readonly expectation: number
  /** Debiased quantile values A' [K]. */
  readonly quantiles: number[]
}

export interface Score {
  /** sum over attributes of weight and expectation; the model's point estimate */
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
  /** Length of the row in tokens. */
  readonly tokens: number
}

export interface RewardModel extends FeatureModel {
  readonly config: LlamaConfig
  readonly tokenizer: Tokenizer | null
  /** Quantile levels [K]. */
  readonly levels: readonly number[]
  /** Names of the attributes [M]. */
  readonly attributes: readonly string[]
  /** Of the utility, where `score` is given no other. */
  readonly lambda: number
  /** Scores rows, in their order. Throws `row N: ...` on the first row that cannot be scored, before any is computed. */
  score(rows: readonly Row[], options?: ScoreOptions): Promise<Score[]>
}

export interface ScoreOptions extends RunOptions {
  /** Of the utility, 0 or more; default: the model's. */
  readonly lambda?: number
  /**
   * Whether to sort the quantiles of each attribute, and those of the mixture, into ascending order before anything is computed
   * from them; default false. The point estimate, expectations and utility do not depend on the order, up to their last bits.
   */
  readonly rearrange?: boolean
}

/** Loads a QRM model directory. Throws on whatever is missing, unexpected or damaged, naming file and tensor. */
export async function loadRewardModel(
  device: Device,
  files: ModelFiles,
  options: ModelOptions = {},
): Promise<RewardModel> {
  const checkpoint = await readCheckpoint(files)
  const backbone = await loadBackbone(device, files, options)
  const { config, rules, name, tokenizer } = backbone
  const heads: { destroy(): void }[] = []
  try {
    const regression = new Regression(device, checkpoint.regression, config.hidden)
    heads.push(regression)
    const gate = new Gate(device, checkpoint.gate, config.hidden)
    heads.push(gate)
    const { levels, attributes, lambda: usual } = checkpoint.manifest
    return {
      name,
      config,
      tokenizer,
      levels,
      attributes,
      lambda: usual,
      encode: (row, settings) => encodeRow(row, rules, settings?.gate),
      features: (rows, settings) => extractFeatures(backbone, rows, settings),
      async score(rows, { lambda = usual, rearrange: sorted = false, ...settings } = {}) {
        checkLambda(lambda)
        const encoded = encodeRows(rows, rules, true)
        const results = new Array<Score>(rows.length)
        await backbone.run(encoded, { gate: true, ...settings }, async ({ indices, last, prompt }) => {
          const values = await regression.forward(last)
          const weights = await gate.forward(prompt!)
          for (const [b, result] of describe(checkpoint, values, weights, indices, { lambda, sorted }).entries()) {
            results[indices[b]] = { ...result, tokens: encoded[indices[b]].input_ids.length }
          }
        })
        return results
      },
      fingerprint: backbone.fingerprint,
      async destroy() {
        await backbone.destroy()
        for (const head of heads.splice(0)) head.destroy()
      },
    }
  } catch (error) {
    for (const head of heads) head.destroy()
    await backbone.destroy()
    throw error
  }
}

/** Mixes and measures: values [B, M, K] and weights [B, M] to scores. `indices` names the rows in errors. */
function describe(
  { manifest, transform }: Checkpoint,
  values: Float32Array,
  weights: Float32Array,
  indices: readonly number[],
  { lambda, sorted }: { readonly lambda: number; readonly sorted: boolean },
): Omit<Score, 'tokens'>[] {
  const names = manifest.attributes
  const M = names.length
  const K = manifest.levels.length
  for (const [b, row] of indices.entries()) {
    checkRow(values.subarray(b * M * K, (b + 1) * M * K), row, 'quantile values')
    checkRow(weights.subarray(b * M, (b + 1) * M), row, 'gate weights')
  }
  const mixed = mix({ values, gate: weights, transform, objectives: M, levels: K, mixture: manifest.mixture })
  const ordered = (quantiles: Float64Array) => (sorted ? rearrange(quantiles) : quantiles)
  return indices.map((_, b) => {
    const quantiles = ordered(mixed.quantiles.subarray(b * K, (b + 1) * K))
    const attribute = (j: number): AttributeScore => {
      const at = (b * M + j) * K
      const debiased = ordered(mixed.debiased.subarray(at, at + K))
      return { expectation: expectation(debiased), quantiles: Array.from(debiased) }
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
