// Numbers of float64 to the floats of safetensors files, with one rounding: to nearest, ties to even.

/** Types of floats that weights are stored in. */
export type FloatDType = 'F32' | 'F16' | 'BF16'

/** Rounds to the elements of a type; F16 and BF16 as bits. Numbers beyond the type become infinite, NaN stays NaN. */
export function narrowF64(
  values: Float64Array,
  dtype: FloatDType,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  if (dtype === 'F32') return new Float32Array(values)
  return dtype === 'F16' ? narrowToF16(values) : narrowToBF16(values)
}

/** BF16 is the upper half of F32, but to round to F32 first would be to round twice where the first result is a tie. */
function narrowToBF16(values: Float64Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.length)
  const float = new Float32Array(1)
  const word = new Uint32Array(float.buffer)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    float[0] = value
    let own = word[0]
    if ((own & 0x7fffffff) > 0x7f800000) {
      bits[i] = (own >>> 16) | 0x40
      continue
    }
    // The true value is beside this tie: move by one unit of F32 towards it.
    if ((own & 0xffff) === 0x8000 && float[0] !== value) own += Math.abs(value) > Math.abs(float[0]) ? 1 : -1
    bits[i] = (own + 0x7fff + ((own >>> 16) & 1)) >>> 16
  }
  return bits
}

function narrowToF16(values: Float64Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    const size = Math.abs(value)
    const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
    if (Number.isNaN(value)) bits[i] = 0x7e00
    else if (size >= 65520) bits[i] = sign | 0x7c00
    else if (size < 2 ** -14) bits[i] = sign | even(size * 2 ** 24)
    else {
      let exponent = Math.floor(Math.log2(size))
      if (2 ** exponent > size) exponent--
      else if (2 ** (exponent + 1) <= size) exponent++
      // A fraction of 2048 carries into the exponent, as the bits follow each other.
      bits[i] = sign | (((exponent + 15) << 10) + even(size * 2 ** (10 - exponent)) - 1024)
    }
  }
  return bits
}

/** The nearest whole number, of two the even one; at most 2^52. */
function even(value: number): number {
  const low = Math.floor(value)
  const rest = value - low
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low
}
