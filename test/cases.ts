// What every kernel is tested and timed on: reference, sizes, special inputs, error growth, benchmark sizes.
import type { Dimension } from '../src/device/kernel.ts'
import type { DType, TensorData } from '../src/device/tensor.ts'
import { type Algorithm, type KernelName, kernels } from '../src/generated/kernels.ts'
import { attention, attention_decode, EXP_SLACK } from './attention_case.ts'
import { gradCases } from './grad_cases.ts'
import { loraCases } from './lora_cases.ts'
import { memoryCases } from './memory_cases.ts'
import type { Random } from './random.ts'
import { random } from './random.ts'
import * as ops from './reference/ops.ts'
import { storages } from './reference/storage.ts'

type Sizes = ops.Sizes

export interface KernelCase {
  readonly reference: ops.Reference
  /**
   * Values of the shape letters: all 1; one that is a multiple of nothing, on which the special inputs are tried too; below,
   * at and above the tiles of shader and twin; a realistic one. They may set scalars.
   */
  readonly sizes: readonly Sizes[]
  /** Number of terms of the longest sum, for the tolerance; 0 where the result is exact. */
  readonly longestSum: (sizes: Sizes) => number
  readonly scalars?: Readonly<Record<string, number>>
  /** The u32 tensors. */
  readonly integers?: (sizes: Sizes, random: Random) => Record<string, Uint32Array<ArrayBuffer>>
  /** Tensors without negative values. */
  readonly positive?: readonly string[]
  /** Values near the limits of the kernel to draw from, by tensor; all other tensors hold noise. */
  readonly extremes?: Readonly<Record<string, readonly number[]>>
  /** Factor of the tolerance where 8 is not enough, with the reason beside it. */
  readonly slack?: number
  /** Sizes to time, by what they are; attention's are one sequence, of which its flops are. */
  readonly benchmarks: Readonly<Record<string, Sizes>>
  /** Sizes to time instead on a hardware GPU, where the others would end too soon or stay in a cache. */
  readonly hardware?: Readonly<Record<string, Sizes>>
}

/** Widths of Llama models: hidden, key and value heads together, feed-forward. */
const LINEAR_BENCHMARKS = {
  'Llama-3.2-1B q_proj, 512 tokens': { N: 512, D: 2048, O: 2048 },
  'Llama-3-8B k_proj, 512 tokens': { N: 512, D: 4096, O: 1024 },
  'SmolLM2-135M down_proj, 512 tokens': { N: 512, D: 1536, O: 576 },
}
const VEC_BENCHMARKS = {
  'Llama-3.2-1B gate_proj, 1 row': { N: 1, D: 2048, O: 8192 },
  'Llama-3-8B q_proj, 1 row': { N: 1, D: 4096, O: 4096 },
  'Llama-3-8B q_proj, 8 rows': { N: 8, D: 4096, O: 4096 },
}

// Tiles: 64 outputs, 64 rows and 32 columns of weights in WGSL; 4 rows x 8 outputs in WASM.
const tiled: KernelCase = {
  reference: ops.linear,
  sizes: [
    { N: 1, D: 1, O: 1 },
    { N: 17, D: 19, O: 33 },
    { N: 63, D: 31, O: 65 },
    { N: 64, D: 32, O: 64 },
    { N: 65, D: 33, O: 63 },
    { N: 9, D: 130, O: 7 },
    { N: 130, D: 64, O: 200 },
    { N: 48, D: 576, O: 192 },
  ],
  longestSum: ({ D }) => D,
  extremes: { x: [1e18, -1e18, 1e-18, 0], weight: [6e4, -6e4, 1e-4] },
  benchmarks: LINEAR_BENCHMARKS,
}

// Four outputs and 64 columns at a time, one to eight rows; more rows are correct too, only slower.
const vec: KernelCase = {
  ...tiled,
  sizes: [
    { N: 1, D: 1, O: 1 },
    { N: 3, D: 19, O: 33 },
    { N: 2, D: 63, O: 3 },
    { N: 4, D: 64, O: 4 },
    { N: 5, D: 65, O: 5 },
    { N: 8, D: 257, O: 31 },
    { N: 9, D: 40, O: 12 },
    { N: 1, D: 2048, O: 512 },
  ],
  benchmarks: VEC_BENCHMARKS,
}

const lookup: KernelCase = {
  reference: ops.embedding,
  sizes: [
    { V: 1, D: 1, N: 1 },
    { V: 17, D: 19, N: 33 },
    { V: 64, D: 63, N: 3 },
    { V: 5, D: 64, N: 64 },
    { V: 33, D: 65, N: 65 },
    { V: 1000, D: 576, N: 48 },
    // More workgroups than fit one dimension of the grid.
    { V: 7, D: 1, N: 65537 },
  ],
  longestSum: () => 0,
  integers: ({ V, N }, { integers }) => ({ tokens: integers(N, 0, V) }),
  extremes: { table: [65504, -65504, 2 ** -24, -(2 ** -14), 1 - 2 ** -9, -0] },
  benchmarks: { 'SmolLM2-135M, 512 tokens': { V: 49152, D: 576, N: 512 } },
}

/** Sizes of an elementwise kernel [first letter, second letter], around one workgroup and around a vector of four. */
const elementwise = (a: string, b: string): Sizes[] =>
  [
    [1, 1],
    [17, 19],
    [1, 3],
    [3, 85],
    [4, 64],
    [1, 257],
    [48, 576],
  ].map(([n, d]) => ({ [a]: n, [b]: d }))

const RESIDUAL = { 'Llama-3.2-1B hidden states, 512 tokens': { N: 512, D: 2048 } }

/** By shader: one without its row is a type error. */
const algorithms: Readonly<Record<Algorithm, KernelCase>> = {
  ...gradCases,
  ...loraCases,
  attention,
  attention_decode,
  ...memoryCases,
  add: {
    reference: ops.add,
    sizes: elementwise('N', 'D'),
    longestSum: () => 2,
    extremes: { x: [1.6e38, -1.6e38, 1e30], y: [1.6e38, -1.6e38, -1e30] },
    benchmarks: RESIDUAL,
  },
  batch_norm: {
    reference: ops.batch_norm,
    sizes: elementwise('N', 'D'),
    longestSum: () => 4,
    scalars: { eps: 1e-5 },
    positive: ['variance'],
    extremes: { x: [1e18, -1e18, 0], variance: [0, 1e30, 1] },
    benchmarks: { 'gate, 64 prompts': { N: 64, D: 1024 } },
  },
  bias_add: {
    reference: ops.bias_add,
    sizes: elementwise('N', 'O'),
    longestSum: () => 2,
    benchmarks: { 'quantile heads, 64 rows': { N: 64, O: 361 } },
  },
  copy: {
    reference: ops.copy,
    sizes: [1, 1023, 255, 256, 257, 63, 64, 65, 2, 3, 4, 5, 1025, 100003].map((N) => ({ N })),
    longestSum: () => 0,
    extremes: { x: [3.4028234e38, -3.4028234e38, 1.2e-38] },
    benchmarks: { '64 MiB': { N: 2 ** 24 } },
    hardware: { '256 MiB': { N: 2 ** 26 } },
  },
  embedding: lookup,
  fma: {
    reference: ops.fma,
    sizes: [
      ...[1, 1023, 1024, 1025, 47, 48, 49, 4096].map((N) => ({ N })),
      ...[1, 9, 31, 32, 33].map((rounds) => ({ N: 1025, rounds })),
    ],
    // The error halves in every round.
    longestSum: () => 2,
    scalars: { rounds: 70 },
    // Large enough to show after 70 halvings.
    extremes: { x: [3e38, -3e38, 1e35] },
    benchmarks: { '2048 rounds': { N: 2 ** 20, rounds: 2048 } },
    hardware: { '32768 rounds': { N: 2 ** 22, rounds: 32768 } },
  },
  gather_rows: {
    reference: ops.gather_rows,
    sizes: [
      { N: 1, D: 1, B: 1 },
      { N: 17, D: 19, B: 33 },
      { N: 3, D: 256, B: 1 },
      { N: 65, D: 64, B: 4 },
      { N: 48, D: 576, B: 5 },
    ],
    longestSum: () => 0,
    integers: ({ N, B }, { integers }) => ({ rows: integers(B, 0, N) }),
    benchmarks: { 'last tokens of 64 rows': { N: 4096, D: 2048, B: 64 } },
  },
  linear: tiled,
  linear_vec: vec,
  relu: {
    reference: ops.relu,
    sizes: elementwise('N', 'D'),
    longestSum: () => 0,
    extremes: { x: [3.4e38, -3.4e38, -0] },
    benchmarks: { 'gate, 64 prompts': { N: 64, D: 1024 } },
  },
  rms_norm: {
    reference: ops.rms_norm,
    sizes: [
      { N: 1, D: 1 },
      { N: 17, D: 19 },
      { N: 3, D: 63 },
      { N: 2, D: 64 },
      { N: 5, D: 65 },
      { N: 1, D: 257 },
      { N: 8, D: 2048 },
    ],
    longestSum: ({ D }) => D,
    scalars: { eps: 1e-5 },
    extremes: { x: [1e17, -1e17, 1e-17] },
    benchmarks: RESIDUAL,
  },
  rope: {
    reference: ops.rope,
    sizes: [
      { N: 1, H: 1, E: 1, P: 1 },
      { N: 17, H: 3, E: 5, P: 19 },
      { N: 1, H: 1, E: 255, P: 2 },
      { N: 4, H: 2, E: 32, P: 64 },
      { N: 3, H: 1, E: 86, P: 9 },
      { N: 40, H: 9, E: 32, P: 40 },
    ],
    longestSum: () => 2,
    integers: ({ N, P }, { integers }) => ({ position: integers(N, 0, P) }),
    extremes: { cos: [1, -1, 0], sin: [0], x: [3.4e38, -3.4e38] },
    benchmarks: { 'Llama-3.2-1B queries, 512 tokens': { N: 512, H: 32, E: 32, P: 512 } },
  },
  softmax: {
    reference: ops.softmax,
    sizes: [
      { N: 1, D: 1 },
      { N: 17, D: 19 },
      { N: 3, D: 63 },
      { N: 2, D: 64 },
      { N: 5, D: 65 },
      { N: 2, D: 1000 },
    ],
    longestSum: ({ D }) => D,
    scalars: { temperature: 0.75, scale: 1.5 },
    extremes: { x: [1e38, -1e38, 100, -100, 0] },
    slack: EXP_SLACK,
    benchmarks: { 'gate of 19 objectives, 64 prompts': { N: 64, D: 19 } },
  },
  swiglu: {
    reference: ops.swiglu,
    sizes: elementwise('N', 'F'),
    longestSum: () => 4,
    extremes: { gate: [-200, 200, 87, -87, 89, -89, -1e30, 1e30, 0, -0], up: [1e8, -1, 1e-8] },
    slack: EXP_SLACK,
    benchmarks: { 'Llama-3.2-1B, 256 tokens': { N: 256, F: 8192 } },
  },
}

/** By kernel: that of its shader, at sizes that its storage type allows. */
export const cases = Object.fromEntries(
  (Object.keys(kernels) as KernelName[]).map((name) => {
    const row = algorithms[kernels[name].algorithm]
    const benchmarks = Object.entries(row.benchmarks).map(([what, sizes]) => [what, allowed(name, sizes)])
    const sizes = row.sizes.map((sizes) => allowed(name, sizes))
    return [name, { ...row, sizes, benchmarks: Object.fromEntries(benchmarks) }]
  }),
) as unknown as Readonly<Record<KernelName, KernelCase>>

/** Rounds the sizes up that the kernel divides. */
export function allowed(name: KernelName, sizes: Sizes): Sizes {
  const rounded: Record<string, number> = { ...sizes }
  for (const { shape } of kernels[name].tensors)
    for (const d of shape) if (typeof d === 'object') rounded[d.letter] = Math.ceil(sizes[d.letter]! / d.by) * d.by
  return rounded
}

/** What the inputs of a call hold that are not u32. */
export type InputKind = 'noise' | 'outliers' | 'zeros' | 'negative zeros' | 'constant' | 'extremes'
export const INPUT_KINDS: readonly InputKind[] = [
  'noise',
  'outliers',
  'zeros',
  'negative zeros',
  'constant',
  'extremes',
]

export interface CallTensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  /** As the device gets it. Outputs are full of NaN. */
  readonly data: TensorData
  /** The numbers that are stored; those of a stored matrix as a whole. */
  readonly values: ArrayLike<number>
}

export interface Call {
  readonly tensors: Readonly<Record<string, CallTensor>>
  readonly scalars: Readonly<Record<string, number>>
  readonly sizes: Sizes
}

/** Makes the tensors and scalars of one call; the same arguments give the same numbers. */
export function makeCall(name: KernelName, given: Sizes, kind: InputKind = 'noise', seed = 1): Call {
  const { scalars: defaults = {}, integers, positive = [], extremes = {} } = cases[name]
  const generator = random(seed)
  const scalars: Record<string, number> = {}
  for (const scalar of kernels[name].scalars)
    scalars[scalar.name] = Math.fround(given[scalar.name] ?? defaults[scalar.name]!)
  const sizes = { ...given, ...scalars }
  const whole = integers?.(sizes, generator) ?? {}
  const tensors: Record<string, CallTensor> = {}
  const { stored } = kernels[name]
  const shapes = Object.fromEntries(kernels[name].tensors.map(({ name, shape }) => [name, shapeOf(shape, sizes)]))
  for (const { name: tensor, dtype, role } of kernels[name].tensors) {
    const shape = shapes[tensor]!
    const length = shape.reduce((product, n) => product * n, 1)
    if (tensors[tensor]) continue
    if (dtype === 'u32') {
      tensors[tensor] = { dtype, shape, data: whole[tensor]!, values: whole[tensor]! }
    } else if (role === 'output') {
      const data = new Float32Array(length).fill(NaN)
      tensors[tensor] = { dtype, shape, data, values: data }
    } else {
      const drawn = fill(length, kind, extremes[tensor], generator)
      const data = positive.includes(tensor) ? drawn.map(Math.abs) : drawn
      if (tensor === stored?.tensor) {
        const type = storages[stored.storage]
        const parts = type.encode(data)
        const values = type.decode(parts)
        for (const [end, data] of Object.entries(parts)) {
          const { dtype } = kernels[name].tensors.find((spec) => spec.name === tensor + end)!
          tensors[tensor + end] = { dtype, shape: shapes[tensor + end]!, data, values }
        }
      } else tensors[tensor] = { dtype, shape, data, values: data }
    }
  }
  return { tensors, scalars, sizes }
}

const shapeOf = (shape: readonly Dimension[], sizes: Sizes): number[] =>
  shape.map((d) => (typeof d === 'number' ? d : typeof d === 'string' ? sizes[d]! : sizes[d.letter]! / d.by))

/** What the call must give, in float64, by the name of the tensor; of a stored one, the numbers after rounding. */
export function expect(name: KernelName, { tensors, sizes }: Call): Record<string, Float64Array> {
  const values = Object.fromEntries(Object.entries(tensors).map(([tensor, { values }]) => [tensor, values]))
  const results = cases[name].reference(values, sizes)
  const { stored } = kernels[name]
  const written = stored && results[stored.tensor]
  if (!written) return results
  const type = storages[stored.storage]
  return { ...results, [stored.tensor]: type.decode(type.encode(Float32Array.from(written))) }
}

/** The numbers of a tensor that a kernel has written. */
export function numbersOf(name: KernelName, tensor: string, data: TensorData): Float32Array {
  const { stored } = kernels[name]
  if (tensor !== stored?.tensor) return data as Float32Array
  return Float32Array.from(storages[stored.storage].decode({ '': data }))
}

function fill(
  length: number,
  kind: InputKind,
  extremes: readonly number[] | undefined,
  { normal, integers }: Random,
): Float32Array<ArrayBuffer> {
  if (kind === 'zeros') return new Float32Array(length)
  if (kind === 'negative zeros') return new Float32Array(length).fill(-0)
  if (kind === 'constant') return new Float32Array(length).fill(0.3)
  if (kind === 'outliers') return normal(length, { outliers: 0.02 })
  if (kind === 'extremes' && extremes)
    return Float32Array.from(integers(length, 0, extremes.length), (i) => extremes[i]!)
  return normal(length)
}
