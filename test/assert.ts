// Assertions for arrays of numbers and for errors; they say where and by how much.

/**
 * Throws unless every |actual[i] - expected[i]| <= limit (a NaN only equals a NaN, an infinity only itself); prints the
 * worst element, its index, both values, the error, the limit and the number of failures.
 */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: number, name: string): void {
  if (actual.length !== expected.length) {
    throw new Error(`${name}: ${actual.length} elements, expected ${expected.length}`)
  }
  if (!(limit >= 0)) throw new Error(`${name}: the limit must be a number of at least 0, got ${limit}`)
  let worst = -1
  let worstError = -1
  let failures = 0
  for (let i = 0; i < actual.length; i++) {
    const error = distance(actual[i], expected[i])
    if (error > limit) failures++
    if (error > worstError) {
      worst = i
      worstError = error
    }
  }
  if (failures === 0) return
  throw new Error(
    `${name}: ${failures} of ${actual.length} elements are off; worst at [${worst}]: got ${actual[worst]}, ` +
      `expected ${expected[worst]}, error ${worstError.toExponential(3)}, limit ${limit.toExponential(3)}`,
  )
}

function distance(a: number, b: number): number {
  if (a === b || (Number.isNaN(a) && Number.isNaN(b))) return 0
  const error = Math.abs(a - b)
  return Number.isNaN(error) ? Infinity : error
}

/** The limit for sums of float32 products: c * 2^-24 * sqrt(length of the longest sum) * rms(expected). */
export function tolerance(longestSum: number, expected: ArrayLike<number>, c = 8): number {
  let squares = 0
  for (let i = 0; i < expected.length; i++) squares += expected[i] * expected[i]
  return c * 2 ** -24 * Math.sqrt(longestSum) * Math.sqrt(squares / Math.max(expected.length, 1))
}

/** Awaits `work`, which must throw an Error with exactly this message (or one that matches); it must be one line. */
export async function fails(work: () => unknown, message: string | RegExp): Promise<void> {
  let caught: unknown
  try {
    await work()
  } catch (error) {
    caught = error
  }
  if (!(caught instanceof Error)) throw new Error(`expected the error ${message}, nothing was thrown`)
  const fits = typeof message === 'string' ? caught.message === message : message.test(caught.message)
  if (!fits) throw new Error(`expected the error ${message}, got: ${caught.message}`, { cause: caught })
  if (/[\r\n]/.test(caught.message))
    throw new Error(`an error must be one line, got: ${JSON.stringify(caught.message)}`)
}
