// Trainings of a linear head on the state at each sequence's last token, the backbone adapted by LoRA, as a task of the trainer.
//
//   outputs[s, o] = sum over d of state[s, d] * weight[o, d] (+ bias[o])
//
// What is learned from the outputs is the loss's business: a few numbers a sequence, computed in float64 on the CPU. Sequences that
// begin alike, as the two sides of a pair do, have their beginning computed once, forward and backward.

import { dropoutKey } from '../data/random.ts'
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { Backbone } from '../llama/forward.ts'
import { linear, linearGradInput } from '../llama/linear.ts'
import { groupPrefixes } from '../llama/prefix.ts'
import { openPass, type PassOptions, type TrainingPass } from '../llama/training_pass.ts'
import type { AdapterParameters } from './adapter_parameters.ts'
import type { TokenBatch, TokenTally } from './adapter_training.ts'
import { cutByTokens, type PieceOptions, stepPieces } from './data_order.ts'
import type { LogEntry } from './log.ts'
import type { Parameter } from './parameters.ts'
import type { Plan } from './schedule.ts'
import { notFinite, type Task } from './trainer.ts'

/** What is learned from examples, each of one sequence or more. */
export interface HeadLoss<Example, Sums> {
  sequencesOf(example: Example): readonly Uint32Array[]
  /** What the loss is a mean over: 1 of a pair. */
  weightOf(example: Example): number
  readonly nothing: Sums
  /**
   * Adds an example to sums. `outputs` and `gradient` are [S, O] of its S sequences; the gradient of the example's loss, not yet
   * divided by anything, is written into `gradient`.
   */
  add(sums: Sums, example: Example, outputs: Float64Array, gradient: Float64Array): Sums
  /** Means by the names of the log, `loss` first. */
  means(sums: Sums): Readonly<Record<string, number>> & { readonly loss: number }
  /** Those that a line of an evaluation has too. */
  readonly evaluated: readonly string[]
}

/** A linear head that is trained; both may be parameters of the adapter or stand beside it. */
export interface TrainedHead {
  /** [O, D] */
  readonly weight: Parameter
  /** [O] */
  readonly bias: Parameter | null
}

export interface HeadBatch extends TokenBatch {
  /** Numbers of examples. */
  readonly examples: readonly number[]
}

export interface HeadTally extends TokenTally {
  /** Of the last step. */
  readonly loss: number | null
  /** What the last evaluation has found, by the names of the log. */
  readonly evaluation: Readonly<Record<string, number>> | null
}

export interface HeadData<Example> {
  readonly examples: readonly Example[]
  readonly held: readonly Example[]
  readonly plan: Plan
}

interface Found<Sums> {
  readonly sums: Sums
  readonly tokens: number
}

export interface HeadOptions extends PieceOptions {
  readonly dropout: number
  readonly checkpointing: boolean
  /** Steps between two evaluations; 0: only after the last step. */
  readonly evalSteps: number
  /** Whether beginnings that sequences have in common are computed once; the gradients are the same but for rounding. */
  readonly share: boolean
}

/** A model with an adapter and a head. */
export interface HeadModel {
  readonly device: Device
  readonly model: Backbone
  readonly adapter: AdapterParameters
  readonly head: TrainedHead
}

/** Makes the task. Model, adapter and head stay the caller's. */
export function headTask<Example, Sums>(
  parts: HeadModel,
  loss: HeadLoss<Example, Sums>,
  { examples, held, plan }: HeadData<Example>,
  options: HeadOptions,
): Task<HeadBatch, Found<Sums>, HeadTally> {
  const { device, adapter, head } = parts
  const { seed, dropout, checkpointing, share, evalSteps } = options
  const own = [head.weight, ...(head.bias ? [head.bias] : [])].filter((one) => !adapter.parameters.includes(one))
  const pieces = stepPieces(plan, (example) => computedTokens(loss.sequencesOf(examples[example]), share), options)
  const biasGrad = new Float64Array(head.bias?.value.size ?? 0)
  const nothing: Found<Sums> = { sums: loss.nothing, tokens: 0 }
  let now = 0
  let found = nothing
  // Gradients of the adapter are zero while a head is: they are looked at from the first step on whose head is not.
  let checked = false
  let reaches = false
  let firstOnly = true
  return {
    parameters: [...adapter.parameters, ...own],
    statistics: [],
    nothing: { tokens: 0, loss: null, evaluation: null },
    adds: true,
    async updates(step) {
      now = step
      if (!checked) reaches = (await head.weight.value.readF32()).some((value) => value !== 0)
      return [
        pieces(step).map(
          (piece): HeadBatch => ({
            examples: piece,
            weight: piece.reduce((sum, example) => sum + loss.weightOf(examples[example]), 0),
            tokens: piece.reduce((sum, example) => sum + tokensOf(loss.sequencesOf(examples[example])), 0),
          }),
        ),
      ]
    },
    async compute(batch, { index, total }) {
      if (index === 0) {
        adapter.clear()
        for (const { grad } of own) device.fill(grad)
        biasGrad.fill(0)
        found = nothing
      }
      const some = batch.examples.map((example) => examples[example])
      firstOnly &&= some.every((example) => loss.sequencesOf(example).every(({ length }) => length === 1))
      const keys = batch.examples.flatMap((example) => {
        const count = loss.sequencesOf(examples[example]).length
        return Array.from({ length: count }, (_, s) => dropoutKey(seed, now, count * example + s))
      })
      const how = { checkpointing, share, ...(dropout > 0 && { dropout: { share: dropout, keys } }) }
      const got = await learn(parts, loss, some, found.sums, how, { total, biasGrad })
      found = { sums: got.sums, tokens: found.tokens + got.tokens }
    },
    async sums() {
      if (!checked && reaches) {
        await adapter.checkGradients({ firstOnly })
        checked = true
      }
      return found
    },
    record(tally, { step, lr, updates, moved }) {
      const [{ sums: got, norm }] = updates
      const means = loss.means(got.sums)
      if (!Number.isFinite(means.loss)) throw notFinite('the loss', means.loss, { step, moved })
      const tokens = tally.tokens + got.tokens
      const entry: LogEntry = {
        ...{ step, epoch: step / plan.stepsPerEpoch, ...means },
        ...{ grad_norm: norm, learning_rate: lr, num_tokens: tokens },
      }
      return { tally: { ...tally, tokens, loss: means.loss }, entries: [entry] }
    },
    async evaluate(tally, step, signal) {
      const due = step === plan.steps || (evalSteps > 0 && step % evalSteps === 0)
      if (held.length === 0 || !due) return { tally, entries: [] }
      const means = loss.means(await evaluateHead(parts, loss, held, { ...options, signal }))
      const names = loss.evaluated.filter((name) => name in means)
      const evaluation = Object.fromEntries(names.map((name) => [`eval_${name}`, means[name]]))
      const entry: LogEntry = { step, epoch: step / plan.stepsPerEpoch, ...evaluation }
      return { tally: { ...tally, evaluation }, entries: [entry] }
    },
  }
}

const tokensOf = (sequences: readonly Uint32Array[]): number => sequences.reduce((sum, { length }) => sum + length, 0)

/** Tokens that go through the model for an example: what its sequences begin with alike is computed once. */
function computedTokens(sequences: readonly Uint32Array[], share: boolean): number {
  const all = tokensOf(sequences)
  if (!share) return all
  return groupPrefixes(sequences, all).reduce((sum, { members, common }) => sum - (members.length - 1) * common, all)
}

/** Measures examples without learning from them. Throws the signal's reason between two passes. */
export async function evaluateHead<Example, Sums>(
  parts: HeadModel,
  loss: HeadLoss<Example, Sums>,
  examples: readonly Example[],
  { tokens, share, signal }: Pick<HeadOptions, 'tokens' | 'share'> & { readonly signal?: AbortSignal },
): Promise<Sums> {
  const all = examples.map((_, i) => i)
  let { nothing: sums } = loss
  for (const piece of cutByTokens(all, (i) => computedTokens(loss.sequencesOf(examples[i]), share), tokens)) {
    signal?.throwIfAborted()
    const some = piece.map((i) => examples[i])
    sums = (await learn(parts, loss, some, sums, { checkpointing: true, share }, null)).sums
  }
  return sums
}

/** Runs examples, adds them to sums and, where `target` is given, the gradients of their loss / total; else nothing goes back. */
async function learn<Example, Sums>(
  { device, model, adapter, head }: HeadModel,
  loss: HeadLoss<Example, Sums>,
  examples: readonly Example[],
  before: Sums,
  { share, ...options }: PassOptions & { readonly share: boolean },
  target: { readonly total: number; readonly biasGrad: Float64Array } | null,
): Promise<Found<Sums>> {
  const sequences = examples.flatMap((example) => loss.sequencesOf(example))
  const groups = share ? { groups: groupPrefixes(sequences, tokensOf(sequences)) } : {}
  const pass = await openPass(device, model, adapter.layers, sequences, { ...options, ...groups })
  const owned: { destroy(): void }[] = [pass]
  const make = (label: string, shape: readonly number[], data?: Float32Array): Tensor => {
    const tensor = device.tensor(shape, { label, ...(data && { data }) })
    owned.push(tensor)
    return tensor
  }
  try {
    const { rows, places } = lastRows(pass, sequences)
    const x = pass.states(rows)
    const [S, O] = [sequences.length, head.weight.value.shape[0]!]
    const y = make('outputs of the head', [S, O])
    linear(device, x, head.weight.value, y)
    const [stored, bias] = [await y.readF32(), (await head.bias?.value.readF32()) ?? null]
    const gradient = new Float32Array(S * O)
    let sums = before
    let first = 0
    for (const example of examples) {
      const count = loss.sequencesOf(example).length
      const outputs = new Float64Array(count * O)
      const grad = new Float64Array(count * O)
      for (let i = 0; i < outputs.length; i++) {
        const [s, o] = [first + Math.floor(i / O), i % O]
        outputs[i] = stored[places[s] * O + o] + (bias ? bias[o] : 0)
      }
      sums = loss.add(sums, example, outputs, grad)
      if (target)
        for (let i = 0; i < grad.length; i++) {
          const [s, o] = [first + Math.floor(i / O), i % O]
          gradient[places[s] * O + o] = grad[i] / target.total
          if (bias) target.biasGrad[o] += grad[i] / target.total
        }
      first += count
    }
    if (target) {
      const dy = make('gradient of the outputs', [S, O], gradient)
      const dx = make('gradient of the states', x.shape)
      device.run('linear_grad_weight_add', { dy, x, dweight: head.weight.grad })
      if (head.bias) head.bias.grad.write(Float32Array.from(target.biasGrad))
      linearGradInput(device, dy, head.weight.value, dx)
      await pass.backward(dx, adapter.grads)
    }
    return { sums, tokens: tokensOf(sequences) }
  } finally {
    for (const thing of owned) thing.destroy()
  }
}

/** Rows of the last tokens, ascending, and for each sequence its place among them. */
function lastRows(pass: TrainingPass, sequences: readonly Uint32Array[]) {
  const rowOf = sequences.map(({ length }, s) => pass.rowOf(s, length - 1))
  const rows = Uint32Array.from(rowOf).sort()
  const placeOf = new Map(Array.from(rows, (row, place) => [row, place]))
  return { rows, places: rowOf.map((row) => placeOf.get(row)!) }
}
