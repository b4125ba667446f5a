// What the attention kernel is tested and timed on; see cases.ts.
import type { KernelCase } from './cases.ts'
import type { Random } from './random.ts'
import * as ops from './reference/ops.ts'

type Sizes = ops.Sizes

/**
 * WGSL promises exp to 3 + 2 |x| units in the last place only, and SwiftShader is off by 16 of them; see also the
 * relative error of an exponential, which is the absolute error of its argument.
 */
export const EXP_SLACK = 4

export const attention: KernelCase = {
  reference: ops.attention,
  // 16 queries x 64 keys x 32 channels in WGSL, where 64, 128 and 256 channels each mean another division of labour;
  // up to 64 queries x 64 keys in WASM.
  sizes: [
    { Q: 1, N: 1, H: 1, C: 1, G: 1, B: 1 },
    { Q: 37, N: 51, H: 4, C: 19, G: 2, B: 5 },
    { Q: 15, N: 15, H: 2, C: 31, G: 1, B: 1 },
    { Q: 16, N: 17, H: 3, C: 32, G: 3, B: 2 },
    { Q: 33, N: 65, H: 2, C: 65, G: 2, B: 8 },
    { Q: 63, N: 9, H: 1, C: 64, G: 1, B: 63 },
    { Q: 65, N: 127, H: 2, C: 127, G: 1, B: 4 },
    { Q: 150, N: 150, H: 1, C: 100, G: 1, B: 3 },
    { Q: 129, N: 200, H: 1, C: 8, G: 1, B: 3 },
    { Q: 64, N: 150, H: 1, C: 129, G: 1, B: 1 },
    { Q: 20, N: 20, H: 1, C: 256, G: 1, B: 1 },
    { Q: 144, N: 200, H: 9, C: 64, G: 3, B: 9 },
  ],
  longestSum: ({ N, C }) => 2 * N + C,
  // A power of two, so that the extremes below have exact scores, ties included.
  scalars: { scale: 0.125 },
  integers: (sizes, generator) => ({ plan: attentionBlocks(sizes, generator) }),
  extremes: { q: [30, -30], k: [30, -30] },
  slack: EXP_SLACK,
  benchmarks: {
    'SmolLM2-135M, 512 tokens': { Q: 512, N: 512, H: 9, C: 64, G: 3, B: 8 },
    'Llama-3.2-1B, 512 tokens': { Q: 512, N: 512, H: 32, C: 64, G: 8, B: 8 },
    'Llama-3-8B, 256 tokens': { Q: 256, N: 256, H: 32, C: 128, G: 8, B: 4 },
  },
}

/**
 * Blocks of at most 64 queries in their order. With as many queries as keys and no more blocks than they need, all is one sequence; else
 * each block has its own number of queries, prefix and keys, anywhere among the keys.
 */
function attentionBlocks({ Q, N, B }: Sizes, { next }: Random): Uint32Array<ArrayBuffer> {
  const most = 64
  const whole = Q === N && B === Math.ceil(Q / most)
  const blocks: number[] = []
  const below = (limit: number) => Math.floor(next() * limit)
  for (let b = 0, first = 0; b < B; b++) {
    const [rest, left] = [Q - first, B - b - 1]
    const least = Math.max(1, rest - left * most)
    const highest = Math.min(most, rest - left)
    const count = whole ? Math.min(most, rest) : least + below(highest - least + 1)
    const position = whole ? first : below(N - count + 1)
    const own = whole ? 0 : below(N - count - position + 1)
    const shared = whole ? 0 : below(N + 1)
    blocks.push(first, count, below(N - shared + 1), shared, own, position)
    first += count
  }
  return Uint32Array.from(blocks)
}

export const attention_decode: KernelCase = {
  reference: ops.attention_decode,
  // 64 keys and 64 channels at a time in WGSL; 64 keys and 32 channels in WASM.
  sizes: [
    { N: 1, H: 1, C: 1, M: 1, W: 2 },
    { N: 17, H: 4, C: 19, M: 51, W: 2 * 2 * 19 },
    { N: 3, H: 8, C: 31, M: 63, W: 2 * 31 },
    { N: 2, H: 3, C: 32, M: 64, W: 2 * 3 * 32 },
    { N: 5, H: 2, C: 33, M: 65, W: 2 * 33 },
    { N: 3, H: 2, C: 65, M: 129, W: 2 * 2 * 65 },
    { N: 2, H: 2, C: 130, M: 200, W: 2 * 130 },
    { N: 2, H: 1, C: 256, M: 70, W: 2 * 256 },
    { N: 8, H: 9, C: 64, M: 300, W: 2 * 3 * 64 },
  ],
  longestSum: ({ M, C }) => 2 * M + C,
  // A power of two, so that the extremes below have exact scores, ties included.
  scalars: { scale: 0.125 },
  integers: (sizes, generator) => ({ plan: decodePlan(sizes, generator) }),
  extremes: { q: [30, -30], kv: [30, -30] },
  slack: EXP_SLACK,
  benchmarks: {
    'SmolLM2-135M, 512 keys': { N: 1, H: 9, C: 64, M: 512, W: 384 },
    'SmolLM2-135M, 16 sequences of 512 keys': { N: 16, H: 9, C: 64, M: 512, W: 384 },
    'Llama-3-8B, 1024 keys': { N: 1, H: 32, C: 128, M: 1024, W: 2048 },
  },
}

/** For each sequence any number of keys, of which a part lies in a prefix; the last sees all rows, and of many one sees none. */
function decodePlan({ N, M }: Sizes, { next }: Random): Uint32Array<ArrayBuffer> {
  const below = (limit: number) => Math.floor(next() * limit)
  const plan: number[] = []
  for (let n = 0; n < N; n++) {
    const count = n === N - 1 ? M : n === 1 && N > 2 ? 0 : 1 + below(M)
    const ahead = below(count + 1)
    plan.push(count, below(M - ahead + 1), ahead, below(M - count + ahead + 1))
  }
  return Uint32Array.from(plan)
}
