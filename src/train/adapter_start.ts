// Adapters as they begin: A drawn as PEFT draws it, B zero, so that the model computes what its base does.

import { randomBits, uniform } from '../data/random.ts'
import type { AdapterConfig } from '../llama/adapter_config.ts'
import type { Adapter, LayerLora, LoraWeights } from '../llama/adapter_files.ts'
import { PROJECTIONS, planAdapter } from '../llama/adapter_plan.ts'
import type { LlamaConfig } from '../llama/config.ts'
import { type ProjectionName, shapesOf } from '../llama/weights.ts'

// Streams of random numbers for adapters: the first is the head's, then one for each projection of each layer. Epochs have those from
// 2^21 on, and whatever else is drawn the first few.
const HEAD = 2 ** 16
const PROJECTION = HEAD + 1

/**
 * Draws a new adapter for a base of these sizes. A [r, I] is uniform in [-1 / sqrt(I), 1 / sqrt(I)), which is what Kaiming's rule with
 * a = sqrt(5) comes to; B [O, r] is zero. For the task SEQ_CLS, a head [1, D] is normal with mean 0 and standard deviation
 * 1 / sqrt(D + 1). A seed is a whole number of 32 bits; a projection's numbers depend on the seed, its layer and its name alone.
 */
export function startAdapter(config: AdapterConfig, base: LlamaConfig, seed: number): Adapter {
  const shapes = shapesOf(base)
  const layers = planAdapter(config, base).layers.map((projections, layer): LayerLora => {
    const own: Partial<Record<ProjectionName, LoraWeights>> = {}
    for (const [i, name] of PROJECTIONS.entries()) {
      const planned = projections[name]
      if (planned === undefined) continue
      const [O, I] = shapes[name]
      const stream = PROJECTION + PROJECTIONS.length * layer + i
      const a = uniform(seed, stream, planned.rank * I, 1 / Math.sqrt(I))
      own[name] = { ...planned, a, b: new Float32Array(O * planned.rank) }
    }
    return own
  })
  const score = config.task === 'SEQ_CLS' ? { labels: 1, weight: startScore(base.hidden, seed) } : null
  return { name: config.name, config, layers, score }
}

/** A head [1, D] before training: normal, standard deviation 1 / sqrt(D + 1). */
export function startScore(hidden: number, seed: number): Float32Array {
  const weight = new Float32Array(hidden)
  for (let d = 0; d < hidden; d++) {
    // Box and Muller: never the logarithm of 0.
    const radius = Math.sqrt(-2 * Math.log((randomBits(seed, HEAD, 2 * d) + 1) * 2 ** -32))
    const angle = 2 * Math.PI * randomBits(seed, HEAD, 2 * d + 1) * 2 ** -32
    weight[d] = (radius * Math.cos(angle)) / Math.sqrt(hidden + 1)
  }
  return weight
}
