// Cases of the kernels that only move values.
import type { KernelCase } from './cases.ts'
import type { Random } from './random.ts'
import * as ops from './reference/ops.ts'

export const memoryCases = {
  cache_rows: {
    reference: ops.cache_rows,
    sizes: [
      { M: 1, W: 2, N: 1 },
      { M: 17, W: 38, N: 5 },
      // A pair of values that has one of each half, and rows past the end.
      { M: 9, W: 6, N: 20 },
      { M: 3, W: 256, N: 1 },
      { M: 70, W: 64, N: 65 },
      { M: 512, W: 384, N: 16 },
    ],
    longestSum: () => 0,
    integers: ({ M, N }, generator) => ({ rows: differentRows(N, Math.ceil(1.5 * M) + N, generator) }),
    extremes: {
      k: [65504, -65504, 65519, 2 ** -24, -(2 ** -25), 1.5 * 2 ** -24, 2 ** -14, 1 + 2 ** -11, 1 + 3 * 2 ** -11, -0],
      v: [2 ** -15, 1e-30, 2 ** -14 - 2 ** -26],
      kv: [0],
    },
    benchmarks: { 'SmolLM2-135M, 16 sequences': { M: 8192, W: 384, N: 16 } },
  },
  copy_rows: {
    reference: ops.copy_rows,
    sizes: [
      { N: 1, D: 1, M: 1, first: 0 },
      { N: 3, D: 19, M: 17, first: 5 },
      { N: 4, D: 64, M: 9, first: 5 },
      { N: 65, D: 7, M: 70, first: 1 },
      // Rows past the end are left out: some, and all, also where the sum of the two would wrap.
      { N: 5, D: 3, M: 6, first: 4 },
      { N: 5, D: 3, M: 6, first: 6 },
      { N: 5, D: 3, M: 6, first: 2 ** 32 - 256 },
      { N: 40, D: 192, M: 512, first: 300 },
    ],
    longestSum: () => 0,
    extremes: { x: [3.4028234e38, -3.4028234e38, 1.2e-38, -0], y: [0] },
    benchmarks: { 'Llama-3.2-1B keys of 512 tokens': { N: 512, D: 512, M: 8192, first: 1000 } },
  },
  fill: {
    reference: ops.fill,
    sizes: [1, 1023, 255, 256, 257, 63, 64, 65, 100003].map((N) => ({ N })),
    longestSum: () => 0,
    scalars: { value: -0.7 },
    benchmarks: { '64 MiB': { N: 2 ** 24 } },
  },
} satisfies Record<string, KernelCase>

/** N numbers below a limit, each once, in no order. */
function differentRows(N: number, limit: number, { next }: Random): Uint32Array<ArrayBuffer> {
  const keys = Array.from({ length: limit }, (_, row) => ({ row, key: next() }))
  keys.sort((a, b) => a.key - b.key)
  return Uint32Array.from(keys.slice(0, N), ({ row }) => row)
}
