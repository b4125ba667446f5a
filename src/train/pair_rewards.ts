// The frozen heads' part of gate training, computed once: what each attribute gives to the two responses of every pair.
import type { Device } from '../device/device.ts'
import { linear } from '../llama/linear.ts'
import { expectationMap, type HeadsFile } from '../reward/heads_file.ts'
import type { PairFile } from '../reward/pair_file.ts'
import type { PairStates } from './pair_task.ts'

// Pairs that are in memory at a time: few, so that this pass needs less than training does.
const BLOCK = 256

export interface RewardOptions {
  /** Called after each block of pairs. */
  readonly onProgress?: (done: number, pairs: number) => void
  readonly signal?: AbortSignal
}

/**
 * The states and rewards for training a gate: with E the debiased expectations [N, 2, M], rewards are E chosen less E rejected
 * [N, M], or, where the sides have prompt states of their own, E chosen and the negated E rejected [N, 2 M]. Reads all features
 * once. Throws where features and heads are of different widths or models.
 */
export async function gateStates(
  device: Device,
  pairs: PairFile,
  heads: HeadsFile,
  { onProgress, signal }: RewardOptions = {},
): Promise<PairStates> {
  checkTogether(pairs, heads)
  const { columns, sidesDiffer } = pairs
  const count = heads.attributes.length
  const width = sidesDiffer ? 2 * count : count
  const rewards = new Float32Array(pairs.pairs * width)
  const map = expectationMap(heads)
  const block = Math.min(BLOCK, pairs.pairs)
  const weight = device.tensor([count, columns], { label: 'expectations of the heads', data: map.weight })
  const x = device.tensor([2 * block, columns], { label: 'features' })
  const y = device.tensor([2 * block, count], { label: 'expectations' })
  const buffer = new Float32Array(2 * block * columns)
  const rowsFrom = (first: number) => Array.from({ length: Math.min(block, pairs.pairs - first) }, (_, i) => first + i)
  let reading = pairs.readSides(rowsFrom(0), buffer)
  try {
    for (let first = 0; first < pairs.pairs; first += block) {
      signal?.throwIfAborted()
      const size = Math.min(block, pairs.pairs - first)
      const [from, to] = [x.view([2 * size, columns]), y.view([2 * size, count])]
      from.write(await reading)
      if (first + block < pairs.pairs) {
        reading = pairs.readSides(rowsFrom(first + block), buffer)
        reading.catch(() => {})
      }
      linear(device, from, weight, to)
      putRewards(await to.readF32(), map.bias, sidesDiffer, rewards.subarray(first * width, (first + size) * width))
      onProgress?.(first + size, pairs.pairs)
    }
    const sides = sidesDiffer ? 2 : 1
    return { pairs: pairs.pairs, columns, sides, rewards, read: (rows, into) => pairs.readPrompts(rows, into) }
  } finally {
    await reading.catch(() => {})
    for (const tensor of [weight, x, y]) tensor.destroy()
  }
}

function checkTogether(pairs: PairFile, heads: HeadsFile): void {
  if (!pairs.hasPrompts) throw new Error(`${pairs.name}: has no tensor "prompt_embeddings", which a gate needs`)
  if (pairs.columns !== heads.columns) {
    throw new Error(
      `${heads.name}: heads must be for features of ${pairs.columns} columns, as those of ${pairs.name} are, got ${heads.columns}`,
    )
  }
  if (pairs.fingerprint !== null && heads.fingerprint !== null && pairs.fingerprint !== heads.fingerprint) {
    throw new Error(
      `${heads.name}: heads must be fitted to features of the model that made ${pairs.name}, the fingerprints differ; ` +
        'make both with one model',
    )
  }
}

/** Rewards of a block from the products [B, 2, M] of its states with the heads. */
function putRewards(products: Float32Array, bias: Float64Array, sidesDiffer: boolean, rewards: Float32Array): void {
  const count = bias.length
  for (let b = 0; b < products.length / (2 * count); b++) {
    for (let m = 0; m < count; m++) {
      const [chosen, rejected] = [products[2 * b * count + m], products[(2 * b + 1) * count + m]]
      if (sidesDiffer) {
        rewards[2 * b * count + m] = chosen + bias[m]
        rewards[(2 * b + 1) * count + m] = -(rejected + bias[m])
      } else rewards[b * count + m] = chosen - rejected
    }
  }
}

/** The states and rewards for training a Bradley-Terry head: both responses' states, of which the second counts negative. */
export function scoreStates(pairs: PairFile): PairStates {
  const rewards = Float32Array.from({ length: 2 * pairs.pairs }, (_, i) => 1 - 2 * (i % 2))
  return {
    pairs: pairs.pairs,
    columns: pairs.columns,
    sides: 2,
    rewards,
    read: (rows, into) => pairs.readSides(rows, into),
  }
}
