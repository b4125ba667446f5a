// How far an interior point may go along a direction.

/** Per label: the parts of the residual above and below 0 (primal), and the distances to the bounds of the dual; all above 0. */
export interface InteriorPoint {
  readonly above: Float64Array
  readonly below: Float64Array
  readonly up: Float64Array
  readonly down: Float64Array
}

/** Longest primal and dual step, at most 1, that keep `share` of the way to the boundary. `up` falls by dz as `down` rises. */
export function stepLengths(
  { above, below, up, down }: InteriorPoint,
  dAbove: Float64Array,
  dBelow: Float64Array,
  dz: Float64Array,
  share: number,
): [number, number] {
  let primal = 1 / share
  let dual = 1 / share
  for (let i = 0; i < dz.length; i++) {
    const [da, db, d] = [dAbove[i], dBelow[i], dz[i]]
    if (da < 0 && -above[i] > primal * da) primal = -above[i] / da
    if (db < 0 && -below[i] > primal * db) primal = -below[i] / db
    if (d > 0 && up[i] < dual * d) dual = up[i] / d
    if (d < 0 && down[i] < -dual * d) dual = -down[i] / d
  }
  return [Math.min(1, share * primal), Math.min(1, share * dual)]
}
