// Supervised fine-tuning as a task of the trainer: the negative log-probability of learned tokens, a mean over all of a step.
//
//   loss = -(sum over learned tokens of log p(token | tokens before it)) / (their number in the whole step)
//
// Source: the loss of transformers with `num_items_in_batch`, which does not depend on how a step is cut into micro-batches.

import { dropoutKey } from '../data/random.ts'
import type { Device } from '../device/device.ts'
import type { Backbone } from '../llama/forward.ts'
import type { OutputLayer, TokenMeasures } from '../llama/output_layer.ts'
import { openPass, type PassOptions } from '../llama/training_pass.ts'
import type { AdapterParameters } from './adapter_parameters.ts'
import type { TokenBatch, TokenTally } from './adapter_training.ts'
import { cutByTokens, type PieceOptions, stepPieces } from './data_order.ts'
import type { Plan } from './schedule.ts'
import { IGNORED, type SftRow } from './sft_rows.ts'
import { notFinite, type Task } from './trainer.ts'

/** Sequences that are computed at once: each one row, or with packing the rows of one bin. */
export interface SftBatch extends TokenBatch {
  /** Numbers of rows. */
  readonly rows: readonly number[]
}

/** What a step came to, as sums over its tokens. */
export interface TokenSums {
  readonly learned: number
  /** Tokens of all rows, prompts included. */
  readonly tokens: number
  /** Of -log p and of the entropy in nats. */
  readonly loss: number
  readonly entropy: number
  /** Learned tokens that no other token beats. */
  readonly hits: number
}

export interface SftTally extends TokenTally {
  /** Of the last step, and of the last evaluation. */
  readonly loss: number | null
  readonly evalLoss: number | null
}

export interface SftTaskOptions extends PieceOptions {
  readonly dropout: number
  readonly checkpointing: boolean
  /** Steps between two evaluations; 0: only after the last step. */
  readonly evalSteps: number
}

export interface SftData {
  readonly rows: readonly SftRow[]
  /** What a step counts: lists of rows, of one row each without packing. */
  readonly sequences: readonly (readonly number[])[]
  readonly plan: Plan
  readonly held: readonly SftRow[]
}

const NOTHING: TokenSums = { learned: 0, tokens: 0, loss: 0, entropy: 0, hits: 0 }

/** Learned tokens of a row: the first is predicted from nothing. */
export function learnedTokens({ labels }: SftRow): number {
  let count = 0
  for (let t = 1; t < labels.length; t++) if (labels[t] !== IGNORED) count++
  return count
}

/** Makes the task. The adapter, the backbone and the output layer stay the caller's. */
export function sftTask(
  device: Device,
  model: Backbone,
  output: OutputLayer,
  adapter: AdapterParameters,
  { rows, sequences, plan, held }: SftData,
  options: SftTaskOptions,
): Task<SftBatch, TokenSums, SftTally> {
  const { seed, dropout, checkpointing } = options
  const lengthOf = (sequence: number) => sequences[sequence].reduce((sum, row) => sum + rows[row].tokens.length, 0)
  const pieces = stepPieces(plan, lengthOf, options)
  let now = 0
  let sums = NOTHING
  let checked = false
  let firstOnly = true
  return {
    parameters: adapter.parameters,
    statistics: [],
    nothing: { tokens: 0, loss: null, evalLoss: null },
    adds: true,
    async updates(step) {
      now = step
      return [
        pieces(step).map((piece): SftBatch => {
          const own = piece.flatMap((sequence) => sequences[sequence])
          return {
            rows: own,
            weight: own.reduce((sum, row) => sum + learnedTokens(rows[row]), 0),
            tokens: own.reduce((sum, row) => sum + rows[row].tokens.length, 0),
          }
        }),
      ]
    },
    async compute(batch, { index, total }) {
      if (index === 0) {
        adapter.clear()
        sums = NOTHING
      }
      const keys = batch.rows.map((row) => dropoutKey(seed, now, row))
      const own = batch.rows.map((row) => rows[row])
      firstOnly &&= own.every(({ labels }) => !labels.subarray(2).some((label) => label !== IGNORED))
      const pass = { checkpointing, ...(dropout > 0 && { dropout: { share: dropout, keys } }) }
      sums = addSums(sums, await learn(device, model, output, adapter, own, pass, total))
    },
    async sums() {
      if (!checked) await adapter.checkGradients({ firstOnly })
      checked = true
      return sums
    },
    record(tally, { step, lr, updates, moved }) {
      const [{ sums: found, norm }] = updates
      const means = meansOf(found)
      if (!Number.isFinite(means.loss)) throw notFinite('the loss', means.loss, { step, moved })
      const tokens = tally.tokens + found.tokens
      const entry: SftEntry = {
        step,
        epoch: step / plan.stepsPerEpoch,
        loss: means.loss,
        grad_norm: norm!,
        learning_rate: lr,
        num_tokens: tokens,
        mean_token_accuracy: means.accuracy,
        entropy: means.entropy,
      }
      return { tally: { ...tally, tokens, loss: means.loss }, entries: [entry] }
    },
    async evaluate(tally, step, signal) {
      const due = step === plan.steps || (options.evalSteps > 0 && step % options.evalSteps === 0)
      if (held.length === 0 || !due) return { tally, entries: [] }
      const means = meansOf(await evaluateRows(device, model, output, adapter, held, options.tokens, signal))
      const entry: SftEvaluation = {
        step,
        epoch: step / plan.stepsPerEpoch,
        eval_loss: means.loss,
        eval_mean_token_accuracy: means.accuracy,
        eval_entropy: means.entropy,
      }
      return { tally: { ...tally, evalLoss: means.loss }, entries: [entry] }
    },
  }
}

/** A line of the log: one step. Names as TRL has them; means are over all learned tokens of the step. */
export interface SftEntry {
  /** From 1. */
  readonly step: number
  /** Passes over the rows so far, as a fraction. */
  readonly epoch: number
  readonly loss: number
  /** Global norm of the gradients before clipping. */
  readonly grad_norm: number
  /** That of this step. */
  readonly learning_rate: number
  /** Tokens so far, prompts included. */
  readonly num_tokens: number
  readonly mean_token_accuracy: number
  /** In nats. */
  readonly entropy: number
}

/** A line of the log: the held-out rows after a step. */
export interface SftEvaluation {
  readonly step: number
  readonly epoch: number
  readonly eval_loss: number
  readonly eval_mean_token_accuracy: number
  readonly eval_entropy: number
}

function addSums(a: TokenSums, b: TokenSums): TokenSums {
  return {
    learned: a.learned + b.learned,
    tokens: a.tokens + b.tokens,
    loss: a.loss + b.loss,
    entropy: a.entropy + b.entropy,
    hits: a.hits + b.hits,
  }
}

function meansOf({ learned, loss, entropy, hits }: TokenSums) {
  return { loss: loss / learned, entropy: entropy / learned, accuracy: hits / learned }
}

/** Measures held-out rows. Throws the signal's reason between two passes. */
export async function evaluateRows(
  device: Device,
  model: Backbone,
  output: OutputLayer,
  adapter: AdapterParameters,
  rows: readonly SftRow[],
  tokens: number,
  signal?: AbortSignal,
): Promise<TokenSums> {
  const all = rows.map((_, i) => i)
  let sums = NOTHING
  for (const piece of cutByTokens(all, (i) => rows[i].tokens.length, tokens)) {
    signal?.throwIfAborted()
    const own = piece.map((i) => rows[i])
    sums = addSums(sums, await learn(device, model, output, adapter, own, { checkpointing: true }, null))
  }
  return sums
}

/** Runs rows and, where `total` is given, adds the gradients of (sum of -log p) / total; without it nothing goes back. */
async function learn(
  device: Device,
  model: Backbone,
  output: OutputLayer,
  adapter: AdapterParameters,
  rows: readonly SftRow[],
  options: PassOptions,
  total: number | null,
): Promise<TokenSums> {
  const pass = await openPass(
    device,
    model,
    adapter.layers,
    rows.map(({ tokens }) => tokens),
    options,
  )
  const owned: { destroy(): void }[] = [pass]
  try {
    // The state before a learned token predicts it.
    const places: { readonly row: number; readonly wanted: number }[] = []
    for (const [s, { labels }] of rows.entries())
      for (let t = 1; t < labels.length; t++)
        if (labels[t] !== IGNORED) places.push({ row: pass.rowOf(s, t - 1), wanted: labels[t] })
    const x = pass.states(Uint32Array.from(places, ({ row }) => row))
    const measured = await output.measure(
      x,
      Uint32Array.from(places, ({ wanted }) => wanted),
    )
    owned.push(measured)
    if (total !== null) {
      const dx = device.tensor(x.shape, { label: 'gradient of the states' })
      owned.push(dx)
      measured.backward(new Float32Array(places.length).fill(1 / total), dx)
      await pass.backward(dx, adapter.grads)
    }
    const tokens = rows.reduce((sum, row) => sum + row.tokens.length, 0)
    return { ...sumMeasures(measured), tokens }
  } finally {
    for (const thing of owned) thing.destroy()
  }
}

function sumMeasures({ logprobs, entropies, hits }: TokenMeasures): Omit<TokenSums, 'tokens'> {
  let [loss, entropy] = [0, 0]
  for (const value of logprobs) loss -= value
  for (const value of entropies) entropy += value
  return { learned: hits.length, loss, entropy, hits: hits.filter(Boolean).length }
}
