// What the kernels of training are tested and timed on; see cases.ts.
import type { KernelCase } from './cases.ts'
import * as ops from './reference/grad_ops.ts'

/** A gate of the paper's size: its first hidden layer on states of an 8B model, a batch of 1024. */
const GATE = { 'gate, layer 1, 1024 prompts': { N: 1024, D: 4096, O: 1024 } }
const GATE_LAYER = { 'gate layer, 1024 prompts': { N: 1024, D: 1024 } }

// Tiles: 64 rows, 64 columns, a depth of 32 in WGSL; 4 x 8, strips of 128 columns, a depth of 512 in WASM.
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

// 32 columns and eight rows at a time in WGSL, four columns in WASM.
const COLUMN_SIZES = (columns: 'D' | 'O') =>
  [
    [1, 1],
    [17, 19],
    [7, 31],
    [8, 32],
    [9, 33],
    [65, 3],
    [130, 130],
  ].map(([N, width]) => ({ N, [columns]: width }))

const ELEMENTS = [1, 1023, 255, 256, 257, 63, 64, 65].map((N) => ({ N }))

export const gradCases = {
  adamw: {
    reference: ops.adamw,
    sizes: ELEMENTS,
    longestSum: () => 4,
    // Step 3 of the constants of the paper, with a larger rate and decay, so that every term shows.
    scalars: {
      lr: 0.01,
      beta1: 0.9,
      beta2: 0.999,
      rest1: 0.1,
      rest2: 0.001,
      eps: 1e-8,
      weight_decay: 0.1,
      correction1: 1 - 0.9 ** 3,
      correction2: 1 - 0.999 ** 3,
    },
    positive: ['v'],
    extremes: { grad: [1e15, -1e-15, 0], v: [1e30, 1e-30], m: [1e15, -1e15], param: [1, -1] },
    benchmarks: { 'gate of an 8B model': { N: 6_300_000 } },
  },
  batch_norm_grad: {
    reference: ops.batch_norm_grad,
    sizes: COLUMN_SIZES('D'),
    longestSum: ({ N }) => N,
    scalars: { eps: 1e-5 },
    positive: ['variance'],
    // A column of small variance is hundreds of times as large as the others, and so are the terms that cancel in it.
    slack: 4,
    benchmarks: GATE_LAYER,
  },
  batch_norm_stats: {
    reference: ops.batch_norm_stats,
    sizes: COLUMN_SIZES('D'),
    longestSum: ({ N }) => N,
    extremes: { x: [1e15, -1e15, 1e-15] },
    benchmarks: GATE_LAYER,
  },
  batch_norm_update: {
    reference: ops.batch_norm_update,
    sizes: [1, 19, 255, 256, 257, 3, 4].map((D) => ({ D })),
    longestSum: () => 2,
    scalars: { momentum: 0.1, rows: 32 },
    positive: ['variance', 'running_variance'],
    benchmarks: { 'gate layer': { D: 1024 } },
  },
  bias_grad: {
    reference: ops.bias_grad,
    sizes: COLUMN_SIZES('O'),
    longestSum: ({ N }) => N,
    extremes: { dy: [1e30, -1e30, 1] },
    benchmarks: { 'gate of 19 objectives, 1024 prompts': { N: 1024, O: 19 } },
  },
  bradley_terry: {
    reference: ops.bradley_terry,
    sizes: [
      { B: 1, M: 1 },
      { B: 17, M: 19 },
      { B: 3, M: 31 },
      { B: 2, M: 32 },
      { B: 5, M: 33 },
      { B: 64, M: 3 },
    ],
    // An exponential is off by the absolute error of its argument.
    longestSum: ({ M }) => M + 4,
    scalars: { margin_scale: 1.5 },
    extremes: { g: [1, -1, 0], r: [8, -8, 1e-3] },
    slack: 4,
    benchmarks: { 'gate of 19 objectives, 1024 pairs': { B: 1024, M: 19 } },
  },
  clip_factor: {
    reference: ops.clip_factor,
    sizes: [1, 19, 255, 256, 257, 20480].map((P) => ({ P })),
    longestSum: ({ P }) => P,
    // Below the norm of some of the sizes, above that of others.
    scalars: { max_norm: 10 },
    positive: ['sums'],
    extremes: { sums: [1e30, 1e-30, 0] },
    benchmarks: { 'LoRA of an 8B model': { P: 20480 } },
  },
  clip_scale: {
    reference: ops.clip_scale,
    sizes: ELEMENTS,
    longestSum: () => 1,
    extremes: { grad: [1e30, -1e-30, 0] },
    benchmarks: { 'gate of an 8B model': { N: 6_300_000 } },
  },
  linear_grad_input: {
    reference: ops.linear_grad_input,
    sizes: SIZES,
    longestSum: ({ O }) => O,
    extremes: { dy: [1e18, -1e18, 1e-18, 0], weight: [6e4, -6e4, 1e-4] },
    benchmarks: { ...GATE, 'gate, layer 2, 1024 prompts': { N: 1024, D: 1024, O: 1024 } },
  },
  linear_grad_weight: {
    reference: ops.linear_grad_weight,
    sizes: SIZES,
    longestSum: ({ N }) => N,
    extremes: { dy: [1e18, -1e18, 1e-18, 0], x: [6e4, -6e4, 1e-4] },
    benchmarks: { ...GATE, 'gate, layer 2, 1024 prompts': { N: 1024, D: 1024, O: 1024 } },
  },
  relu_grad: {
    reference: ops.relu_grad,
    sizes: [
      { N: 1, D: 1 },
      { N: 17, D: 19 },
      { N: 1, D: 3 },
      { N: 3, D: 85 },
      { N: 4, D: 64 },
      { N: 1, D: 257 },
    ],
    longestSum: () => 0,
    extremes: { y: [0, -0, 2e-38, -1, 3e38], dy: [3.4e38, -3.4e38, -0] },
    benchmarks: GATE_LAYER,
  },
  square_sums: {
    reference: ops.square_sums,
    // Blocks of 4096.
    sizes: [
      { N: 1, P: 1, first: 0 },
      { N: 1021, P: 4, first: 2 },
      { N: 4095, P: 2, first: 0 },
      { N: 4096, P: 3, first: 1 },
      { N: 4097, P: 3, first: 0 },
      { N: 13001, P: 9, first: 5 },
    ],
    longestSum: () => 4096,
    extremes: { x: [1e15, -1e15, 1e-15, 0] },
    benchmarks: { 'gate of an 8B model': { N: 6_300_000, P: 1539, first: 0 } },
  },
  softmax_grad: {
    reference: ops.softmax_grad,
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
    benchmarks: { 'gate of 19 objectives, 1024 prompts': { N: 1024, D: 19 } },
  },
} satisfies Record<string, KernelCase>
