// Seeded random numbers: a value depends on seed, stream and counter alone, so that a run that goes on draws the same.
import { mix32, WEYL } from './scramble.ts'

/** 32 random bits. Seed, stream and counter are whole numbers of 32 bits; within a stream no two counters give the same. */
export function randomBits(seed: number, stream: number, counter: number): number {
  return mix32(Math.imul(counter + 1, WEYL) ^ mix32(Math.imul(stream + 1, 0x85ebca6b) ^ mix32(seed + 1)))
}

/** Float32 values, uniform in [-bound, bound), of 24 bits each. */
export function uniform(seed: number, stream: number, length: number, bound: number): Float32Array {
  const values = new Float32Array(length)
  for (let i = 0; i < length; i++) values[i] = bound * ((randomBits(seed, stream, i) >>> 8) * 2 ** -23 - 1)
  return values
}

/** The values in random order (Fisher and Yates). */
export function shuffled(values: Uint32Array, seed: number, stream: number): Uint32Array {
  const order = values.slice()
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor((randomBits(seed, stream, i) / 2 ** 32) * (i + 1))
    const value = order[i]
    order[i] = order[j]
    order[j] = value
  }
  return order
}

/** Streams from here on, one a step, are dropout keys. */
const DROPOUT = 2 ** 20

/** The 32 bits from which the dropout of a sequence in a step follows. */
export function dropoutKey(seed: number, step: number, sequence: number): number {
  return randomBits(seed, DROPOUT + (step % DROPOUT), sequence)
}
