// Which rows are taken of many: those with the smallest seeded hashes. A row's hash depends on its text and the seed alone, so the
// draw does not depend on the order of rows, on the number of files or on what other attributes they have.
import { mix32 } from './scramble.ts'

/** A text's name and place in the draw. */
export interface Drawn {
  /** 16 hexadecimal digits of the text's hash; the same for every seed. */
  readonly id: string
  /** Even over [0, 2^53). */
  readonly draw: number
}

/** Hashes a text. Two lanes of 32 bits over UTF-16 code units; the seed enters after them, so that ids do not depend on it. */
export function drawText(text: string, seed: number): Drawn {
  let a = 0xdeadbeef
  let b = 0x41c6ce57
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    a = Math.imul(a ^ code, 0x9e3779b1)
    b = Math.imul(b ^ code, 0x5f356495)
    // What the product leaves in the high bits comes back into the low ones.
    a ^= a >>> 15
    b ^= b >>> 13
  }
  const high = mix32(a ^ Math.imul(text.length, 0x85ebca6b))
  const low = mix32(b ^ high)
  const first = mix32(high ^ mix32(seed ^ 0x9e3779b9))
  const second = mix32(low ^ first)
  return { id: hex(high) + hex(low), draw: (first >>> 11) * 2 ** 32 + second }
}

function hex(word: number): string {
  return (word >>> 0).toString(16).padStart(8, '0')
}

/** The largest draw that is still among the `limit` smallest different ones; Infinity where all are. */
export function threshold(draws: readonly number[], limit: number): number {
  const sorted = Float64Array.from(draws).sort()
  let different = 0
  for (let i = 0; i < sorted.length; i++) {
    if (i > 0 && sorted[i] === sorted[i - 1]) continue
    if (different === limit) return sorted[i - 1]
    different++
  }
  return Infinity
}

/** How often each draw occurs that occurs more than once. */
export function repeats(draws: readonly number[]): Map<number, number> {
  const sorted = Float64Array.from(draws).sort()
  const found = new Map<number, number>()
  for (let i = 1; i < sorted.length; i++) {
    if (sorted[i] === sorted[i - 1]) found.set(sorted[i], (found.get(sorted[i]) ?? 1) + 1)
  }
  return found
}
