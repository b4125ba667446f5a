// The reward model above the backbone in float64, by loops over the definitions: gate, heads, mixture, risk.

/** y[o] = sum over d of x[d] * weight[o, d] (+ bias[o]); weight [O, D] */
export function linear(x: ArrayLike<number>, weight: ArrayLike<number>, bias?: ArrayLike<number> | null): number[] {
  const inputs = x.length
  return Array.from({ length: weight.length / inputs }, (_, o) => {
    let sum = bias ? bias[o] : 0
    for (let d = 0; d < inputs; d++) sum += x[d] * weight[o * inputs + d]
    return sum
  })
}

export interface ReferenceGate {
  readonly hidden: readonly {
    readonly weight: ArrayLike<number>
    readonly scale: ArrayLike<number>
    readonly shift: ArrayLike<number>
    readonly mean: ArrayLike<number>
    readonly variance: ArrayLike<number>
  }[]
  readonly weight: ArrayLike<number>
  readonly bias: ArrayLike<number>
  readonly temperature: number
  readonly logitScale: number
}

/** Weights of the attributes [M] for one prompt state x [D]: (linear, relu, batch norm)*, linear, softmax * logit scale. */
export function gate(x: ArrayLike<number>, { hidden, weight, bias, temperature, logitScale }: ReferenceGate): number[] {
  let h: ArrayLike<number> = x
  for (const layer of hidden) {
    h = linear(h, layer.weight).map((value, i) => {
      const activated = Math.max(value, 0)
      return ((activated - layer.mean[i]) / Math.sqrt(layer.variance[i] + 1e-5)) * layer.scale[i] + layer.shift[i]
    })
  }
  const logits = linear(h, weight, bias).map((value) => value / temperature)
  const most = Math.max(...logits)
  const powers = logits.map((value) => Math.exp(value - most))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => (power / sum) * logitScale)
}

/** A'[j][k] = sum over i of a[i][k] * transform[i][j] */
export function debias(a: readonly (readonly number[])[], transform: ArrayLike<number>): number[][] {
  const count = a.length
  return a.map((row, j) =>
    row.map((_, k) => {
      let sum = 0
      for (let i = 0; i < count; i++) sum += a[i][k] * transform[i * count + j]
      return sum
    }),
  )
}

/** q[k] = sum over j of g[j] * a[j][k], divided by their number where `mean` */
export function mixture(a: readonly (readonly number[])[], g: readonly number[], mean: boolean): number[] {
  return a[0].map((_, k) => {
    let sum = 0
    for (let j = 0; j < a.length; j++) sum += g[j] * a[j][k]
    return mean ? sum / a.length : sum
  })
}

export function average(q: ArrayLike<number>): number {
  let sum = 0
  for (let k = 0; k < q.length; k++) sum += q[k]
  return sum / q.length
}

/** -mean exp(-lambda q) */
export function utility(q: ArrayLike<number>, lambda: number): number {
  return -average(Array.from(q, (value) => Math.exp(-lambda * value)))
}

/** Mean of the lowest share of equally likely values, by cutting each into `pieces` equal parts. */
export function cvar(q: ArrayLike<number>, level: number, pieces: number): number {
  const parts = Array.from(q, (value) => Array.from({ length: pieces }, () => value)).flat()
  parts.sort((a, b) => a - b)
  return average(parts.slice(0, Math.round(level * parts.length)))
}

/** Q(t) of the piecewise-linear curve, by the definition: the piece that holds t, its line. */
export function curve(q: ArrayLike<number>, levels: ArrayLike<number>, t: number): number {
  if (q.length === 1) return q[0]
  let k = 0
  while (k + 2 < q.length && t > levels[k + 1]) k++
  return q[k] + ((q[k + 1] - q[k]) * (t - levels[k])) / (levels[k + 1] - levels[k])
}
