// Cases of the kernels that only move values.
import type { KernelCase } from './cases.ts'
import * as ops from './reference/ops.ts'

export const memoryCases = {
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
