// Pseudo-random numbers that depend on a number alone: the base of every seeded draw.

/** Step of a Weyl sequence: 2^32 over the golden ratio. */
export const WEYL = 0x9e3779b9

/** Scrambles 32 bits (the finaliser of MurmurHash3). */
export function mix32(bits: number): number {
  let h = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
