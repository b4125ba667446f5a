// One decoder block of a Llama over given buffers: attention and feed-forward, each with its norm and its residual.
//
//   middle = x + o_proj(attention(rope(q_proj(n)), rope(k_proj(n)), v_proj(n)))   with n = rms_norm(x)
//   y      = middle + down_proj(swiglu(gate_proj(m), up_proj(m)))                 with m = rms_norm(middle)
//
// Keys and values are of all N rows; everything after them is of the Q rows that go on, which are all but in a last block
// of which few rows are asked for. Nothing is overwritten that a backward pass reads, as long as no two buffers are one.

import type { Calls } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { LlamaConfig } from './config.ts'
import { linear } from './linear.ts'
import { addLora, type LoraBranches } from './lora.ts'
import type { Make } from './pass_tensors.ts'
import type { LayerWeights, ProjectionName } from './weights.ts'

/** What a block reads and writes. */
export interface BlockBuffers {
  /** Residual stream before the block [N, D]. */
  readonly x: Tensor
  /** x after its norm [N, D]. */
  readonly normed: Tensor
  /** 1 / root mean square of x [N]. */
  readonly rstd: Tensor
  /** Keys after the rotary embedding, and values [N, G C]. */
  readonly k: Tensor
  readonly v: Tensor
  /** The rows of x and of normed that go on [Q, D]: the same tensors where all do. */
  readonly chosenX: Tensor
  readonly chosenNormed: Tensor
  /** Queries after the rotary embedding [Q, H C]. */
  readonly q: Tensor
  /** What attention gives [Q, H C], and the logarithm of its sums [Q, H]. */
  readonly mixed: Tensor
  readonly lse: Tensor
  /** Residual stream after attention [Q, D]. */
  readonly middle: Tensor
  /** middle after its norm [Q, D]; may be `normed`. */
  readonly middleNormed: Tensor
  /** 1 / root mean square of middle [Q]; may be `rstd`. */
  readonly middleRstd: Tensor
  /** [Q, F] */
  readonly gate: Tensor
  readonly up: Tensor
  readonly act: Tensor
  /** Residual stream after the block [Q, D]; may be `x`. */
  readonly y: Tensor
}

/** Where rows stand; the same for all blocks of a forward pass. */
export interface BlockRows {
  /** The rotary tables [P, C / 2]. */
  readonly cos: Tensor
  readonly sin: Tensor
  /** Of the N rows [N] u32. */
  readonly position: Tensor
  /** Of the Q rows that go on [Q] u32. */
  readonly chosenPosition: Tensor
  /** Which rows go on [Q] u32; null: all. */
  readonly chosen: Tensor | null
  /** The blocks of attention [B, 6] u32; in a step of decoding the keys of each row [N, 4] u32. */
  readonly plan: Tensor
  /** Where keys and values are kept beyond this pass; absent: nowhere. */
  readonly cache?: BlockCache
}

/** The cache of one block, which takes the keys and values of its N rows. */
export interface BlockCache {
  /** [M, 2 G C] f32 or f16: keys, then values. */
  readonly kv: Tensor
  /** Which rows of the cache they are [N] u32. */
  readonly rows: Tensor
  /** Whether the rows attend to the cache, each to the keys that the plan says; else to the rows of their own pass. */
  readonly decode: boolean
}

/** Applies a linear map of a block: y = x W^T, and whatever an adapter adds. The only place where they are applied. */
export type Project = (name: ProjectionName, x: Tensor, y: Tensor) => void

/** The linear maps of a block as they are stored, with the branches of an adapter; `apply`: linear, or linearOfFew. */
export function projection(
  device: Calls,
  weights: LayerWeights,
  branches: LoraBranches = {},
  apply: typeof linear = linear,
): Project {
  return (name, x, y) => {
    apply(device, x, weights[name], y)
    const branch = branches[name]
    if (branch) addLora(device, branch, x, y)
  }
}

/**
 * Makes one set of buffers for `rows` rows: y is x, and both norms share theirs, so that it serves one block after the other.
 * What is `given` is not made: a way back asks for separate ones, and shares some between blocks.
 */
export function makeBuffers(
  { hidden: D, heads: H, kvHeads: G, headDim: C, intermediate: F }: LlamaConfig,
  rows: number,
  make: Make,
  given: Partial<Pick<BlockBuffers, 'x' | 'normed' | 'rstd' | 'middleNormed' | 'middleRstd' | 'act'>> = {},
): BlockBuffers {
  const { x = make('x', rows, D), normed = make('normed', rows, D), rstd = make('rstd', rows) } = given
  return {
    x,
    normed,
    rstd,
    k: make('k', rows, G * C),
    v: make('v', rows, G * C),
    chosenX: x,
    chosenNormed: normed,
    q: make('q', rows, H * C),
    mixed: make('mixed', rows, H * C),
    lse: make('lse', rows, H),
    middle: make('middle', rows, D),
    middleNormed: given.middleNormed ?? normed,
    middleRstd: given.middleRstd ?? rstd,
    gate: make('gate', rows, F),
    up: make('up', rows, F),
    act: given.act ?? make('act', rows, F),
    y: x,
  }
}

/** The same buffers for a block of which `rows` rows go on. */
export function chooseBuffers(all: BlockBuffers, rows: number, make: Make): BlockBuffers {
  const few = (tensor: Tensor): Tensor => tensor.view([rows, ...tensor.shape.slice(1)])
  const D = all.x.shape[1]!
  const chosenX = make('chosen x', rows, D)
  return {
    ...all,
    chosenX,
    chosenNormed: make('chosen normed', rows, D),
    q: few(all.q),
    mixed: few(all.mixed),
    lse: few(all.lse),
    middle: few(all.middle),
    middleNormed: few(all.middleNormed),
    middleRstd: few(all.middleRstd),
    gate: few(all.gate),
    up: few(all.up),
    act: few(all.act),
    y: chosenX,
  }
}

/** The first `rows` rows of buffers, for a block over fewer of them. */
export function fewerRows(all: BlockBuffers, rows: number): BlockBuffers {
  const views = Object.entries(all).map(([name, tensor]: [string, Tensor]) => [
    name,
    tensor.view([rows, ...tensor.shape.slice(1)]),
  ])
  return Object.fromEntries(views) as unknown as BlockBuffers
}

/** Records one block. */
export function block(
  device: Calls,
  config: LlamaConfig,
  norms: Pick<LayerWeights, 'input_layernorm' | 'post_attention_layernorm'>,
  project: Project,
  rows: BlockRows,
  b: BlockBuffers,
): void {
  blockInside(device, config, norms, project, rows, b)
  project('down_proj', b.act, b.y)
  device.run('add', { x: b.y, y: b.middle })
}

/** Records a block but for its last linear map: every buffer but y, which is all that a backward pass reads of a block. */
export function blockInside(
  device: Calls,
  config: LlamaConfig,
  norms: Pick<LayerWeights, 'input_layernorm' | 'post_attention_layernorm'>,
  project: Project,
  { cos, sin, position, chosenPosition, chosen, plan, cache }: BlockRows,
  b: BlockBuffers,
): void {
  const { heads: H, kvHeads: G, headDim: C, rmsNormEps: eps } = config
  const N = b.x.shape[0]!
  const Q = b.middle.shape[0]!
  const E = C / 2
  device.run('rms_norm', { x: b.x, weight: norms.input_layernorm, y: b.normed, rstd: b.rstd }, { eps })
  project('k_proj', b.normed, b.k)
  project('v_proj', b.normed, b.v)
  device.run('rope', { x: b.k.view([N, G, 2, E]), cos, sin, position })
  if (cache) {
    const name = cache.kv.dtype === 'f16' ? 'cache_rows_f16' : 'cache_rows'
    device.run(name, { kv: cache.kv, k: b.k, v: b.v, rows: cache.rows })
  }
  if (chosen) {
    device.run('gather_rows', { x: b.x, rows: chosen, y: b.chosenX })
    device.run('gather_rows', { x: b.normed, rows: chosen, y: b.chosenNormed })
  }
  project('q_proj', b.chosenNormed, b.q)
  device.run('rope', { x: b.q.view([Q, H, 2, E]), cos, sin, position: chosenPosition })
  const [q, y] = [b.q.view([Q, H, C]), b.mixed.view([Q, H, C])]
  const scale = 1 / Math.sqrt(C)
  if (cache?.decode) {
    device.run(
      cache.kv.dtype === 'f16' ? 'attention_decode_f16' : 'attention_decode',
      { q, kv: cache.kv, plan, y },
      { scale },
    )
  } else {
    const [k, v] = [b.k.view([N, G, C]), b.v.view([N, G, C])]
    device.run('attention', { q, k, v, plan, y, lse: b.lse }, { scale })
  }
  project('o_proj', b.mixed, b.middle)
  device.run('add', { x: b.middle, y: b.chosenX })

  const weight = norms.post_attention_layernorm
  device.run('rms_norm', { x: b.middle, weight, y: b.middleNormed, rstd: b.middleRstd }, { eps })
  project('gate_proj', b.middleNormed, b.gate)
  project('up_proj', b.middleNormed, b.up)
  device.run('swiglu', { gate: b.gate, up: b.up, y: b.act })
}
