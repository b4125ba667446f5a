// How matrices are stored: for every storage type a decoder in float64, and an encoder that makes test data.
import type { TensorData } from '../../src/device/tensor.ts'
import type { Storage } from '../../src/generated/kernels.ts'

/** The tensors of a stored matrix by what their names end with: '' the values, '_scale' the scales. */
export type Stored = Readonly<Record<string, TensorData>>

export interface StorageReference {
  /** The numbers that are stored. */
  decode(stored: Stored): Float64Array
  /** Rounds numbers, whole rows of them, to the type. */
  encode(values: Float32Array<ArrayBuffer>): Stored
}

export const storages: Readonly<Record<Storage, StorageReference>> = {
  f32: {
    decode: (stored) => Float64Array.from(stored['']!),
    encode: (values) => ({ '': values }),
  },
  f16: {
    decode: (stored) => Float64Array.from(stored['']!, fromF16),
    encode: (values) => ({ '': Uint16Array.from(values, toF16) }),
  },
  bf16: {
    decode: (stored) => Float64Array.from(new Float32Array(Uint32Array.from(stored['']!, (half) => half << 16).buffer)),
    encode(values) {
      const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
      // Round half to even: add just under half of the last kept bit, and that bit.
      return { '': Uint16Array.from(words, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16) }
    },
  },
  q8_0: {
    decode: (stored) =>
      Float64Array.from(stored['']!, (value, i) => value * fromF16(stored._scale![Math.floor(i / 32)]!)),
    encode(values) {
      const scales = Uint16Array.from({ length: values.length / 32 }, (_, block) =>
        toF16(Math.max(...values.subarray(block * 32, block * 32 + 32).map(Math.abs)) / 127),
      )
      const rounded = (value: number, i: number) => Math.round(value / fromF16(scales[Math.floor(i / 32)]!)) || 0
      return {
        '': Int8Array.from(values, (value, i) => Math.max(-127, Math.min(127, rounded(value, i)))),
        _scale: scales,
      }
    },
  },
}

/** Rounds a finite number to the bits of the nearest float16, half to even; what is too large becomes an infinity. */
function toF16(value: number): number {
  const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0
  const size = Math.abs(value)
  if (size >= 65520) return sign | 0x7c00
  const exponent = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size))
  const exact = size / 2 ** (exponent - 10)
  const low = Math.floor(exact)
  const up = exact - low > 0.5 || (exact - low === 0.5 && low % 2 === 1) ? 1 : 0
  // A carry into the exponent is the next larger number, as it should be.
  return sign | (((exponent + 14) << 10) + low + up)
}

function fromF16(bits: number): number {
  const field = (bits >> 10) & 31
  const fraction = bits & 1023
  if (field === 31) return (bits & 0x8000 ? -1 : 1) * (fraction === 0 ? Infinity : NaN)
  const size = field === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (field - 25)
  return bits & 0x8000 ? -size : size
}
