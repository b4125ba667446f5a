// Seeded random numbers for tests: counter-based, so equal seeds give equal data on every machine.

export interface Random {
  /** The next number in [0, 1). */
  next(): number
  /** float32 values, uniform in [low, high). */
  uniform(length: number, low?: number, high?: number): Float32Array<ArrayBuffer>
  /** float32 values of a normal distribution; a share `outliers` of them (0 to 1) is 20 times as large. */
  normal(length: number, options?: { mean?: number; deviation?: number; outliers?: number }): Float32Array<ArrayBuffer>
  /** Whole numbers, uniform in [low, high). */
  integers(length: number, low: number, high: number): Uint32Array<ArrayBuffer>
}

const OUTLIER = 20

/** Makes a generator; each call continues where the last one stopped. */
export function random(seed: number): Random {
  const key = mix(seed >>> 0)
  let counter = 0
  const word = () => mix(key ^ mix(counter++ >>> 0))
  const next = () => (word() * 2 ** 21 + (word() >>> 11)) / 2 ** 53
  const gaussian = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()) // Box and Muller 1958
  return {
    next,
    uniform(length, low = 0, high = 1) {
      return Float32Array.from({ length }, () => low + (high - low) * next())
    },
    normal(length, { mean = 0, deviation = 1, outliers = 0 } = {}) {
      return Float32Array.from({ length }, () => {
        const factor = outliers > 0 && next() < outliers ? OUTLIER : 1
        return mean + deviation * factor * gaussian()
      })
    },
    integers(length, low, high) {
      return Uint32Array.from({ length }, () => low + Math.floor((high - low) * next()))
    },
  }
}

/** Scrambles a 32-bit word: the finaliser of MurmurHash3 after one step of a Weyl sequence. */
function mix(word: number): number {
  let h = (word + 0x9e3779b9) | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
