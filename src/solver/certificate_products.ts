// The products of a certificate on the solver's copy of the features, by kernels that the solvers do not use.
import type { Products } from './certificate.ts'
import type { Matrix } from './matrix.ts'

/** Products with the features in memory; each call gives new arrays. */
export function fastProducts(matrix: Matrix): Products {
  const { arena } = matrix.team
  return {
    rows: matrix.rows,
    scale: matrix.scale.values.slice(),
    predict(weights, intercept) {
      const mark = arena.mark()
      const [index, w] = [arena.u32(matrix.stride), arena.f64(matrix.stride)]
      const out = arena.f64(matrix.rows)
      let count = 0
      const put = (column: number, value: number) => {
        if (value === 0) return
        index.values[count] = column
        w.values[count++] = value
      }
      weights.forEach((value, column) => {
        put(column, value)
      })
      put(matrix.columns, intercept)
      matrix.predict(index, w, count, out)
      arena.release(mark)
      return out.values.slice()
    },
    correlate(perRow, absolute = false) {
      const mark = arena.mark()
      const [u, out] = [arena.f64(matrix.rows), arena.f64(matrix.stride)]
      u.values.set(perRow)
      matrix.correlate(u, out, absolute)
      arena.release(mark)
      return out.values.slice(0, matrix.columns)
    },
  }
}
