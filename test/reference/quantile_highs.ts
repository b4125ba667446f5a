// Weighted L1-penalised quantile regression as a linear program, solved by HiGHS (the package `highs`, WebAssembly).

import loadHighs, { type Highs } from 'highs'
import type { Regression } from './quantile_regression.ts'

/** An optimum of HiGHS: what it says the objective is, and where. */
export interface Optimum {
  readonly objective: number
  readonly weights: Float64Array
  readonly intercept: number
}

let loaded: Promise<Highs> | null = null

/**
 * Solves  minimise sum of v_i (level p_i + (1 - level) q_i) / sum of v + alpha * sum of (w+ + w-)
 *         subject to x_i.(w+ - w-) + b + p_i - q_i = y_i, all but b at least 0.
 *
 * Throws where HiGHS does not call its point optimal.
 */
export async function linearProgram(problem: Regression): Promise<Optimum> {
  const { count, columns, x, y, v, level, alpha, intercept } = problem
  loaded ??= loadHighs()
  const highs = await loaded
  const total = v.reduce((sum, value) => sum + value, 0)
  // Its tolerances are absolute, so labels are brought to a mean size of 1.
  const size = y.reduce((sum, value) => sum + Math.abs(value), 0) / count || 1
  const targets = y.map((value) => value / size)
  const half = columns
  const free = intercept ? 1 : 0
  const first = 2 * half + free
  const numCols = first + 2 * count
  const colCost = new Float64Array(numCols)
  const colLower = new Float64Array(numCols)
  const colUpper = new Float64Array(numCols).fill(highs.infinity)
  colCost.fill(alpha, 0, 2 * half)
  if (intercept) colLower[2 * half] = -highs.infinity
  const starts = new Int32Array(count + 1)
  const indices: number[] = []
  const values: number[] = []
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < columns; j++) {
      const value = x[i * columns + j]
      if (value === 0) continue
      indices.push(j, half + j)
      values.push(value, -value)
    }
    if (intercept) {
      indices.push(2 * half)
      values.push(1)
    }
    indices.push(first + i, first + count + i)
    values.push(1, -1)
    colCost[first + i] = (level * v[i]) / total
    colCost[first + count + i] = ((1 - level) * v[i]) / total
    starts[i + 1] = indices.length
  }
  const model = highs.createModel({
    numCols,
    numRows: count,
    colCost,
    colLower,
    colUpper,
    rowLower: targets,
    rowUpper: targets,
    matrix: {
      format: 'csr',
      numRows: count,
      numCols,
      starts,
      indices: Int32Array.from(indices),
      values: Float64Array.from(values),
    },
  })
  try {
    model.options.set({ output_flag: false, primal_feasibility_tolerance: 1e-9, dual_feasibility_tolerance: 1e-9 })
    model.run()
    const status = model.getModelStatus()
    if (status !== highs.constants.modelStatus.optimal) throw new Error(`highs: must end optimal, ended with ${status}`)
    const { colValue } = model.getSolution()
    const weights = Float64Array.from({ length: columns }, (_, j) => size * (colValue[j] - colValue[half + j]))
    return {
      objective: size * model.getObjectiveValue(),
      weights,
      intercept: intercept ? size * colValue[2 * half] : 0,
    }
  } finally {
    model.dispose()
  }
}
