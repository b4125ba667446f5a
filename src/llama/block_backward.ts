// The way back through one decoder block, line for line against block.ts, from the last line to the first.

import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { BlockBuffers } from './block.ts'
import type { LlamaConfig } from './config.ts'
import type { Make } from './pass_tensors.ts'
import type { LayerWeights, ProjectionName } from './weights.ts'

/** Gradients of a block's buffers. */
export interface BlockGradients {
  /** Of the residual stream [N, D]: of y before the block's backward, of x after it. */
  readonly stream: Tensor
  /** Of both norms' outputs [N, D] */
  readonly normed: Tensor
  readonly act: Tensor
  readonly gate: Tensor
  readonly up: Tensor
  readonly mixed: Tensor
  readonly q: Tensor
  readonly k: Tensor
  readonly v: Tensor
  /** What the softmax of each query needs [N, H, 2]. */
  readonly stats: Tensor
}

/** Where rows stand, for the way back. */
export interface BackwardRows {
  readonly cos: Tensor
  /** The sines with the other sign: the inverse rotation. */
  readonly minusSin: Tensor
  /** [N] u32 */
  readonly position: Tensor
  /** Blocks of queries [B, 6], as forward, and of keys [B, 3]. */
  readonly plan: Tensor
  readonly keyPlan: Tensor
}

/**
 * Takes a gradient through a projection: dx = dy W, or dx += dy W with `add`, and whatever an adapter's branch adds to dx and to its
 * own gradients. Without dx only the latter.
 */
export type Unproject = (name: ProjectionName, x: Tensor, dy: Tensor, dx: Tensor | null, add: boolean) => void

/** Makes gradients for `rows` rows; one set serves all blocks. */
export function makeGradients(
  { hidden: D, heads: H, kvHeads: G, headDim: C, intermediate: F }: LlamaConfig,
  rows: number,
  make: Make,
): BlockGradients {
  return {
    stream: make('gradient of the residual stream', rows, D),
    normed: make('gradient of normed', rows, D),
    act: make('gradient of act', rows, F),
    gate: make('gradient of gate', rows, F),
    up: make('gradient of up', rows, F),
    mixed: make('gradient of mixed', rows, H * C),
    q: make('gradient of q', rows, H * C),
    k: make('gradient of k', rows, G * C),
    v: make('gradient of v', rows, G * C),
    stats: make('softmax statistics', rows, H, 2),
  }
}

/**
 * Records the way back through a block of which all rows went on. `b` holds what its forward left, but with `complete` false not
 * `normed`, `middleNormed` and `act`, which are computed again from the rest. With `needsInput` false the gradient of x is not
 * computed, and `stream` holds that of the residual after attention.
 */
export function blockBackward(
  device: Device,
  config: LlamaConfig,
  norms: Pick<LayerWeights, 'input_layernorm' | 'post_attention_layernorm'>,
  unproject: Unproject,
  { cos, minusSin, position, plan, keyPlan }: BackwardRows,
  b: BlockBuffers,
  g: BlockGradients,
  { complete, needsInput }: { readonly complete: boolean; readonly needsInput: boolean },
): void {
  const { heads: H, kvHeads: G, headDim: C, rmsNormEps: eps } = config
  const N = b.x.shape[0]!
  const E = C / 2
  const after = norms.post_attention_layernorm
  const before = norms.input_layernorm
  if (!complete) {
    device.run('rms_norm', { x: b.x, weight: before, y: b.normed, rstd: b.rstd }, { eps })
    device.run('rms_norm', { x: b.middle, weight: after, y: b.middleNormed, rstd: b.middleRstd }, { eps })
    device.run('swiglu', { gate: b.gate, up: b.up, y: b.act })
  }

  // y = middle + down_proj(act)
  unproject('down_proj', b.act, g.stream, g.act, false)
  device.run('swiglu_grad', { gate: b.gate, up: b.up, dy: g.act, dgate: g.gate, dup: g.up })
  unproject('up_proj', b.middleNormed, g.up, g.normed, false)
  unproject('gate_proj', b.middleNormed, g.gate, g.normed, true)
  device.run('rms_norm_grad', { x: b.middle, weight: after, rstd: b.middleRstd, dy: g.normed, dx: g.stream })

  // middle = x + o_proj(mixed)
  unproject('o_proj', b.mixed, g.stream, g.mixed, false)
  const dy = g.mixed.view([N, H, C])
  device.run('attention_delta', { y: b.mixed.view([N, H, C]), dy, lse: b.lse, stats: g.stats })
  const kept = { q: b.q.view([N, H, C]), k: b.k.view([N, G, C]), v: b.v.view([N, G, C]), dy, stats: g.stats }
  const scale = 1 / Math.sqrt(C)
  device.run('attention_grad_query', { ...kept, plan, dq: g.q.view([N, H, C]) }, { scale })
  const dkv = { dk: g.k.view([N, G, C]), dv: g.v.view([N, G, C]) }
  device.run('attention_grad_key_value', { ...kept, plan: keyPlan, ...dkv }, { scale })
  device.run('rope', { x: g.q.view([N, H, 2, E]), cos, sin: minusSin, position })
  device.run('rope', { x: g.k.view([N, G, 2, E]), cos, sin: minusSin, position })
  const dnormed = needsInput ? g.normed : null
  unproject('q_proj', b.normed, g.q, dnormed, false)
  unproject('v_proj', b.normed, g.v, dnormed, true)
  unproject('k_proj', b.normed, g.k, dnormed, true)
  if (needsInput) device.run('rms_norm_grad', { x: b.x, weight: before, rstd: b.rstd, dy: g.normed, dx: g.stream })
}
