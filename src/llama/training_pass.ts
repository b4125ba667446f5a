// Forward and backward of a Llama with an adapter over packed sequences: gradients of the adapter alone, the base is frozen.
//
// Either every block's buffers are kept until its backward, or, with checkpointing, only the residual stream before each block, and
// the rest is computed again; both give the same bits.

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import {
  type BlockBuffers,
  type BlockRows,
  block,
  blockInside,
  makeBuffers,
  type Project,
  projection,
} from './block.ts'
import { type BackwardRows, blockBackward, makeGradients, type Unproject } from './block_backward.ts'
import type { LlamaConfig } from './config.ts'
import { alone, type Backbone, ropeTables } from './forward.ts'
import { addLinearGradInput, linearGradInput } from './linear.ts'
import { addLoraGrad, type LoraBranches, type LoraLayer, makeBranches } from './lora.ts'
import { checkSequences, type Packed, pack, planBlocks, planKeys } from './pack.ts'
import { type Make, type MakeIndex, passTensors } from './pass_tensors.ts'
import type { PrefixGroup } from './prefix.ts'
import type { LayerWeights, ProjectionName } from './weights.ts'

/** Gradients of an adapter, in the shapes of its maps; a backward pass adds to them. */
export type LoraGradients = readonly Readonly<
  Partial<Record<ProjectionName, { readonly a: Tensor; readonly b: Tensor }>>
>[]

export interface PassOptions {
  /** Which sequences share a beginning; by default none. */
  readonly groups?: readonly PrefixGroup[]
  /** Compute blocks again instead of keeping their buffers. */
  readonly checkpointing?: boolean
  /** Share of the values that the branches drop, from 0 to below 1, and for each sequence a key of 32 bits. */
  readonly dropout?: { readonly share: number; readonly keys: readonly number[] }
}

/** A forward pass whose way back is open. */
export interface TrainingPass {
  /** The row of token t of a sequence. */
  rowOf(sequence: number, t: number): number
  /** States [R, D] of rows after the final norm; good until the pass ends. Rows ascend. */
  states(rows: Uint32Array): Tensor
  /** Adds to `grads` what a gradient [R, D] of the states last asked for comes to. Once per pass. */
  backward(dstates: Tensor, grads: LoraGradients): Promise<void>
  destroy(): void
}

/** Runs the blocks on sequences. Throws as `Llama.hidden` does. */
export async function openPass(
  device: Device,
  model: Backbone,
  adapter: readonly LoraLayer[],
  sequences: readonly Uint32Array[],
  { groups = alone(sequences), checkpointing = false, dropout }: PassOptions = {},
): Promise<TrainingPass> {
  const { config } = model
  checkSequences(config, sequences)
  const packed = pack(sequences, groups)
  const N = packed.rows
  const { make, index, destroy } = passTensors(device)
  try {
    const rows = placeRows(config, packed, make, index)
    const masks =
      dropout && dropout.share > 0
        ? { share: dropout.share, keys: rowKeys(packed, sequences, dropout.keys, index) }
        : null
    const branches = makeBranches(adapter, config, N, make, { backward: true, dropout: masks })
    const project = (layer: number, weights: LayerWeights): Project => projection(device, weights, branches[layer])
    const buffers = makeKept(config, N, make, checkpointing)
    await model.embedding.rows(packed.tokens, buffers(0).x)
    for (let layer = 0; layer < config.layers; layer++) {
      const weights = await model.layers(layer)
      block(device, config, weights, project(layer, weights), rows.forward, buffers(layer))
    }
    const end = buffers(config.layers - 1).y
    const eps = config.rmsNormEps
    let last: { at: Tensor; x: Tensor; rstd: Tensor } | null = null
    return {
      rowOf: packed.rowOf,
      states(wanted) {
        const R = wanted.length
        const at = index('rows', Uint32Array.from(wanted), R)
        const [x, y] = [make('last residual', R, config.hidden), make('states', R, config.hidden)]
        const rstd = make('rstd of states', R)
        device.run('gather_rows', { x: end, rows: at, y: x })
        device.run('rms_norm', { x, weight: model.norm, y, rstd }, { eps })
        last = { at, x, rstd }
        return y
      },
      async backward(dstates, grads) {
        if (!last) throw new Error('training: states must be asked for before the way back')
        const g = makeGradients(config, N, make)
        const dx = make('gradient of the last residual', ...last.x.shape)
        device.fill(dx)
        device.run('rms_norm_grad', { x: last.x, weight: model.norm, rstd: last.rstd, dy: dstates, dx })
        device.fill(g.stream)
        device.run('scatter_rows', { x: dx, rows: last.at, y: g.stream })
        // Below the lowest adapted layer nobody asks for a gradient.
        const lowest = adapter.findIndex((maps) => Object.keys(maps).length > 0)
        for (let layer = config.layers - 1; layer >= lowest && lowest >= 0; layer--) {
          const weights = await model.layers(layer)
          const b = buffers(layer)
          if (checkpointing) blockInside(device, config, weights, project(layer, weights), rows.forward, b)
          const unproject = unprojectWith(device, weights, branches[layer] ?? {}, grads[layer]!)
          blockBackward(device, config, weights, unproject, rows.backward, b, g, {
            complete: checkpointing,
            needsInput: layer > lowest,
          })
        }
      },
      destroy,
    }
  } catch (error) {
    destroy()
    throw error
  }
}

function placeRows(config: LlamaConfig, packed: Packed, make: Make, index: MakeIndex) {
  const E = config.headDim / 2
  const tables = ropeTables(config, packed.longest)
  const [cos, sin] = [make('cos', packed.longest, E), make('sin', packed.longest, E)]
  const minusSin = make('minus sin', packed.longest, E)
  cos.write(tables.cos)
  sin.write(tables.sin)
  minusSin.write(tables.sin.map((value) => -value))
  const position = index('position', packed.position, packed.rows)
  const blocks = planBlocks(
    packed,
    packed.position.map((_, row) => row),
    config.heads,
  )
  const plan = index('plan', blocks, blocks.length / 6, 6)
  const keys = planKeys(packed)
  const keyPlan = index('plan of keys', keys, keys.length / 3, 3)
  const forward: BlockRows = { cos, sin, position, chosenPosition: position, chosen: null, plan }
  const backward: BackwardRows = { cos, minusSin, position, plan, keyPlan }
  return { forward, backward }
}

/** A key of every row: that of its sequence (of a shared beginning, of the first that has it) and its position, mixed. */
function rowKeys(packed: Packed, sequences: readonly Uint32Array[], keys: readonly number[], index: MakeIndex): Tensor {
  const mixed = new Uint32Array(packed.rows)
  const known = new Uint8Array(packed.rows)
  for (const [s, { length }] of sequences.entries()) {
    for (let t = 0; t < length; t++) {
      const row = packed.rowOf(s, t)
      if (known[row]) continue
      known[row] = 1
      let h = Math.imul(t + 1, 0x9e3779b9) ^ keys[s]!
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
      mixed[row] = h ^ (h >>> 16)
    }
  }
  return index('dropout keys', mixed, packed.rows)
}

function unprojectWith(
  device: Device,
  weights: LayerWeights,
  branches: LoraBranches,
  grads: LoraGradients[number],
): Unproject {
  return (name, x, dy, dx, add) => {
    if (dx) (add ? addLinearGradInput : linearGradInput)(device, dy, weights[name], dx)
    const branch = branches[name]
    if (branch) addLoraGrad(device, branch, grads[name]!, x, dy, dx)
  }
}

/** The buffers of each block. What the way back computes again is shared by all; with checkpointing all but x is. */
function makeKept(
  config: LlamaConfig,
  rows: number,
  make: Make,
  checkpointing: boolean,
): (layer: number) => BlockBuffers {
  const D = config.hidden
  const streams = Array.from({ length: config.layers + 1 }, () => make('residual stream', rows, D))
  const middle = () => make('middle rstd', rows)
  const middleNormed = make('middle normed', rows, D)
  const first = makeBuffers(config, rows, make, { x: streams[0], middleNormed, middleRstd: middle() })
  const { normed, act } = first
  const sets = streams.slice(0, -1).map((x, layer) => {
    const y = streams[layer + 1]!
    if (checkpointing || layer === 0) return { ...first, x, chosenX: x, y }
    return { ...makeBuffers(config, rows, make, { x, normed, middleNormed, middleRstd: middle(), act }), y }
  })
  return (layer) => sets[layer]!
}
