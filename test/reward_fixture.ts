// The pairs of test/fixtures/lora/reward, the losses of both kinds of heads in float64, and made-up ratings for the same texts.
import type { PreferenceRow } from '../src/train/preference_rows.ts'
import type { RatedExample } from '../src/train/rated_examples.ts'
import { loraCase, loraIndex } from './lora_fixture.ts'
import { random } from './random.ts'
import { type Gradients, llamaStates, type Model } from './reference/llama_grad.ts'

export const { center, training } = loraIndex()

/** The settings of the fixtures: one batch of all pairs, ten times. */
export const SETTINGS = {
  ...{ lr: training.lr, weightDecay: training.weight_decay, maxGradNorm: training.max_grad_norm },
  ...{ warmup: training.warmup, batch: 100, epochs: 10, shuffle: false, center },
  schedule: 'cosine',
} as const

/** The model, what PyTorch made of it, and the pairs. */
export async function rewardCase() {
  const { model, expected } = await loraCase('reward')
  const pairs: PreferenceRow[] = []
  for (let i = 0; expected.has(`chosen_${i}`); i++) {
    const side = (name: string) => Uint32Array.from(expected.get(`${name}_${i}`) as ArrayLike<number>)
    pairs.push({ chosen: side('chosen'), rejected: side('rejected'), margin: expected.get('margins')![i] })
  }
  return { model, expected, pairs }
}

/** Some texts with ratings of two attributes: one, several or none. */
export function rated(pairs: readonly PreferenceRow[]): RatedExample[] {
  const draw = random(31)
  return pairs.map(({ chosen: tokens }, i) => ({
    tokens,
    ratings: [[...draw.normal(1 + (i % 3))], i % 2 === 0 ? [] : [draw.normal(1)[0]]],
  }))
}

/** Outputs [O] of a head [O, D] after the last token, and the way back into `grads` and the head's gradient. */
function headOutputs(model: Model, head: ArrayLike<number>, tokens: ArrayLike<number>) {
  const { D } = model.shape
  const { states, backward } = llamaStates(model, tokens)
  const last = states.subarray(states.length - D)
  const outputs = Float64Array.from({ length: head.length / D }, (_, o) => {
    let sum = 0
    for (let d = 0; d < D; d++) sum += last[d] * head[o * D + d]
    return sum
  })
  return {
    outputs,
    back(gradient: ArrayLike<number>, grads: Gradients, name: string) {
      const dhead = grads.get(name) ?? new Float64Array(head.length)
      grads.set(name, dhead)
      const dstates = new Float64Array(states.length)
      for (let o = 0; o < outputs.length; o++)
        for (let d = 0; d < D; d++) {
          dhead[o * D + d] += gradient[o] * last[d]
          dstates[states.length - D + d] += gradient[o] * head[o * D + d]
        }
      backward(dstates, grads)
    },
  }
}

/** The Bradley-Terry loss of pairs, written as its formula, with gradients of the adapter; the head is "score.weight". */
export function pairReference(model: Model, pairs: readonly PreferenceRow[], weight: number) {
  const head = model.adapter.get('score.weight')!
  const grads: Gradients = new Map()
  const scores: [number, number][] = []
  let loss = 0
  for (const { chosen, rejected, margin } of pairs) {
    const [a, b] = [chosen, rejected].map((tokens) => headOutputs(model, head, tokens))
    const [r, s] = [a.outputs[0], b.outputs[0]]
    scores.push([r, s])
    loss += (Math.log(1 + Math.exp(margin + s - r)) + weight * (r + s) ** 2) / pairs.length
    const slope = -1 / (1 + Math.exp(r - s - margin))
    a.back([(slope + 2 * weight * (r + s)) / pairs.length], grads, 'score.weight')
    b.back([(-slope + 2 * weight * (r + s)) / pairs.length], grads, 'score.weight')
  }
  return { loss, grads, scores }
}

/** The mean pinball loss of ratings by heads [M K, D] and constants, with gradients of the adapter, "heads" and "bias". */
export function ratingReference(
  model: Model,
  rows: readonly RatedExample[],
  levels: readonly number[],
  heads: ArrayLike<number>,
  bias: ArrayLike<number>,
) {
  const K = levels.length
  const count = rows.reduce((sum, { ratings }) => sum + ratings.flat().length, 0)
  const dbias = new Float64Array(bias.length)
  const grads: Gradients = new Map([['bias', dbias]])
  let loss = 0
  for (const { tokens, ratings } of rows) {
    const { outputs, back } = headOutputs(model, heads, tokens)
    const gradient = new Float64Array(outputs.length)
    for (const [m, values] of ratings.entries())
      for (const y of values)
        for (const [k, level] of levels.entries()) {
          const q = outputs[m * K + k] + bias[m * K + k]
          loss += Math.max(level * (y - q), (level - 1) * (y - q)) / K / count
          gradient[m * K + k] += (y > q ? -level : 1 - level) / K / count
        }
    for (const [o, value] of gradient.entries()) dbias[o] += value
    back(gradient, grads, 'heads')
  }
  return { loss, grads }
}
