// What the kernels of training language models are tested and timed on; see cases.ts.
import type { KernelCase } from './cases.ts'
import type { Random } from './random.ts'
import * as ops from './reference/lora_ops.ts'

const SIZES = [
  { N: 1, D: 1, O: 1 },
  { N: 17, D: 19, O: 33 },
  { N: 63, D: 65, O: 31 },
  { N: 64, D: 64, O: 32 },
  { N: 65, D: 63, O: 33 },
  { N: 9, D: 130, O: 7 },
  { N: 3, D: 12, O: 515 },
  { N: 515, D: 137, O: 6 },
]
/** Rows by columns, around the lanes of a workgroup and around a vector of four. */
const pairs = (a: string, b: string) =>
  [
    [1, 1],
    [17, 19],
    [3, 63],
    [2, 64],
    [5, 65],
    [1, 257],
    [8, 576],
  ].map(([n, d]) => ({ [a]: n, [b]: d }))

/** As EXP_SLACK of cases.ts: the error of an exponential is the absolute error of its argument. */
const EXP_SLACK = 4
const LORA = { 'LoRA of rank 32, SmolLM2-135M gate_proj, 1024 tokens': { N: 1024, D: 576, O: 32 } }
const VOCABULARY = { '256 rows of a block of 8192': { R: 256, B: 8192 } }

/** Around 16 queries and keys in WGSL and 64 in WASM, where 64, 128 and 256 channels each mean another division of labour. */
const ATTENTION = [
  { N: 1, H: 1, C: 1, G: 1, B: 1 },
  { N: 37, H: 4, C: 19, G: 2, B: 5 },
  { N: 15, H: 2, C: 31, G: 1, B: 1 },
  { N: 17, H: 3, C: 32, G: 3, B: 2 },
  { N: 63, H: 2, C: 65, G: 2, B: 4 },
  { N: 65, H: 1, C: 64, G: 1, B: 2 },
  { N: 127, H: 2, C: 127, G: 1, B: 4 },
  { N: 129, H: 1, C: 8, G: 1, B: 3 },
  { N: 150, H: 1, C: 129, G: 1, B: 6 },
  { N: 20, H: 1, C: 256, G: 1, B: 1 },
  { N: 300, H: 8, C: 12, G: 1, B: 9 },
]
const ATTENTION_BENCHMARKS = {
  'SmolLM2-135M, 512 tokens': { N: 512, H: 9, C: 64, G: 3, B: 8 },
  'Llama-3-8B, 256 tokens': { N: 256, H: 32, C: 128, G: 8, B: 4 },
}

/** Rows as a forward pass has them: B blocks of one sequence, or where the first number is odd of sequences with a shared beginning. */
function layOut({ N, B }: Readonly<Record<string, number>>, { next }: Random) {
  const blocks: {
    first: number
    count: number
    prefix: number
    ahead: number
    own: number
    position: number
    stop: number
  }[] = []
  const whole = B === Math.ceil(N / 64)
  // Cuts in ascending order; blocks that do not fit 64 rows are cut further by the caller's choice of B.
  let at = 0
  const ahead = whole || B < 3 ? 0 : Math.max(1, Math.min(64, Math.floor(N / B)))
  for (let b = 0; b < B; b++) {
    const left = B - b - 1
    const least = Math.max(1, N - at - 64 * left)
    const most = Math.min(64, N - at - left)
    const drawn = whole ? most : least + Math.floor(next() * (most - least + 1))
    const count = !whole && b === 0 && ahead > 0 ? Math.max(least, Math.min(most, ahead)) : drawn
    blocks.push({
      first: at,
      count,
      prefix: 0,
      ahead: 0,
      own: whole ? 0 : at,
      position: whole ? at : 0,
      stop: whole ? N : at + count,
    })
    at += count
  }
  // The first block is a beginning that all others share.
  if (!whole && ahead > 0) {
    blocks[0]!.stop = N
    for (const block of blocks.slice(1)) block.ahead = blocks[0]!.count
  }
  return blocks
}

const queryPlan = (sizes: Readonly<Record<string, number>>, random: Random) => ({
  plan: Uint32Array.from(
    layOut(sizes, random).flatMap((b) => [b.first, b.count, b.prefix, b.ahead, b.own, b.position]),
  ),
})
const keyPlan = (sizes: Readonly<Record<string, number>>, random: Random) => ({
  plan: Uint32Array.from(layOut(sizes, random).flatMap((b) => [b.first, b.count, b.stop])),
})

export const loraCases = {
  attention_delta: {
    reference: ops.attention_delta,
    sizes: ATTENTION.map(({ B, G, ...sizes }) => sizes),
    longestSum: ({ C }) => C,
    benchmarks: { 'SmolLM2-135M, 512 tokens': { N: 512, H: 9, C: 64 } },
  },
  attention_grad_key_value: {
    reference: ops.attention_grad_key_value,
    sizes: ATTENTION,
    longestSum: ({ N, H, G, C }) => (N * H) / G + 2 * C,
    // Small enough that no score is far above a random lse, as no true one is.
    scalars: { scale: 1 / 128 },
    integers: keyPlan,
    positive: ['stats'],
    extremes: { stats: [20, 25] },
    slack: EXP_SLACK,
    benchmarks: ATTENTION_BENCHMARKS,
  },
  attention_grad_query: {
    reference: ops.attention_grad_query,
    sizes: ATTENTION,
    longestSum: ({ N, C }) => N + 2 * C,
    scalars: { scale: 1 / 128 },
    integers: queryPlan,
    positive: ['stats'],
    extremes: { stats: [20, 25] },
    slack: EXP_SLACK,
    benchmarks: ATTENTION_BENCHMARKS,
  },
  cross_entropy: {
    reference: ops.cross_entropy,
    sizes: [
      { R: 1, B: 1 },
      { R: 17, B: 19 },
      { R: 3, B: 127 },
      { R: 2, B: 128 },
      { R: 5, B: 129 },
      { R: 2, B: 1003 },
    ],
    longestSum: ({ B }) => B + 4,
    scalars: { first: 7, scale: 1.25 },
    // Some targets lie in the block, some before and some behind it.
    integers: ({ R, B, first }, { integers }) => ({ wanted: integers(R, Math.max(0, first - B), first + 2 * B) }),
    positive: ['total'],
    extremes: { x: [30, -30, 0, 1e30], top: [-1e30, 0] },
    slack: EXP_SLACK,
    benchmarks: VOCABULARY,
  },
  cross_entropy_grad: {
    reference: ops.cross_entropy_grad,
    sizes: pairs('R', 'B'),
    longestSum: () => 4,
    scalars: { first: 7, scale: 1.25 },
    integers: ({ R, B }, { integers }) => ({ wanted: integers(R, 0, 7 + 2 * B) }),
    // lse is at least the largest scaled logit.
    positive: ['lse'],
    extremes: { x: [-80, 0, -1e30], lse: [0, 3, 90] },
    slack: EXP_SLACK,
    benchmarks: VOCABULARY,
  },
  dropout: {
    reference: ops.dropout,
    sizes: [...pairs('N', 'D'), { N: 33, D: 100 }],
    longestSum: () => 0,
    // 2^30 of 2^32: a quarter is dropped, and the factor is a power of two only so that the result is exact.
    scalars: { stream: 3, threshold: 2 ** 30, scale: 2 },
    integers: ({ N }, { integers }) => ({ key: integers(N, 0, 2 ** 32) }),
    extremes: { x: [1e38, -1e38, 0, -0] },
    benchmarks: { 'SmolLM2-135M, 1024 tokens': { N: 1024, D: 576 } },
  },
  linear_grad_input_add: {
    reference: ops.linear_grad_input_add,
    sizes: SIZES,
    longestSum: ({ O }) => O + 1,
    extremes: { dy: [1e18, -1e18, 1e-18, 0], weight: [6e4, -6e4, 1e-4] },
    benchmarks: { ...LORA, 'SmolLM2-135M down_proj, 1024 tokens': { N: 1024, D: 1536, O: 576 } },
  },
  linear_grad_weight_add: {
    reference: ops.linear_grad_weight_add,
    sizes: SIZES,
    longestSum: ({ N }) => N + 1,
    extremes: { dy: [1e18, -1e18, 1e-18, 0], x: [6e4, -6e4, 1e-4] },
    benchmarks: LORA,
  },
  rms_norm_grad: {
    reference: ops.rms_norm_grad,
    sizes: pairs('N', 'D'),
    longestSum: ({ D }) => D,
    positive: ['rstd'],
    extremes: { x: [1e17, -1e17, 1e-17], rstd: [1e-17] },
    benchmarks: { 'SmolLM2-135M, 1024 tokens': { N: 1024, D: 576 } },
  },
  scale: {
    reference: ops.scale,
    sizes: [1, 19, 255, 256, 257, 63, 64, 65].map((N) => ({ N })),
    longestSum: () => 1,
    scalars: { factor: 1.7 },
    extremes: { x: [1e38, -1e38, 0, -0] },
    benchmarks: { 'LoRA of rank 32, 1024 tokens': { N: 32_768 } },
  },
  scatter_rows: {
    reference: ops.scatter_rows,
    sizes: [
      { B: 1, D: 1, N: 1 },
      { B: 17, D: 19, N: 33 },
      { B: 3, D: 256, N: 3 },
      { B: 5, D: 65, N: 64 },
    ],
    longestSum: () => 0,
    integers: ({ B, N }, { integers }) => {
      // A shuffle, so that no row comes twice.
      const order = Uint32Array.from({ length: N }, (_, i) => i)
      const draws = integers(N, 0, 2 ** 31)
      order.sort((a, b) => draws[a] - draws[b] || a - b)
      return { rows: order.slice(0, B) }
    },
    benchmarks: { '512 of 1024 tokens': { B: 512, D: 576, N: 1024 } },
  },
  swiglu_grad: {
    reference: ops.swiglu_grad,
    sizes: pairs('N', 'F'),
    longestSum: () => 6,
    extremes: { gate: [-200, 200, 87, -87, 1e30, -1e30, 0, -0], up: [1e4, -1, 1e-8], dy: [1, -1e3] },
    slack: EXP_SLACK,
    benchmarks: { 'SmolLM2-135M, 1024 tokens': { N: 1024, F: 1536 } },
  },
} satisfies Record<string, KernelCase>
