// Kernels of training language models in float64, by loops over the formula in each shader's header.
import * as grad from './grad_ops.ts'
import type { Reference, Values } from './ops.ts'

const added = (to: ArrayLike<number>, values: Float64Array): Float64Array => values.map((value, i) => to[i] + value)

/** dx[n, d] += sum over o of dy[n, o] * weight[o, d] */
export const linear_grad_input_add: Reference = (tensors, sizes) => ({
  dx: added(tensors.dx, grad.linear_grad_input(tensors, sizes).dx),
})

/** dweight[o, d] += sum over n of dy[n, o] * x[n, d] */
export const linear_grad_weight_add: Reference = (tensors, sizes) => ({
  dweight: added(tensors.dweight, grad.linear_grad_weight(tensors, sizes).dweight),
})

/** Derivatives of gate / (1 + exp(-gate)) * up, times dy */
export const swiglu_grad: Reference = ({ gate, up, dy }, { N, F }) => {
  const [dgate, dup] = [new Float64Array(N * F), new Float64Array(N * F)]
  for (let i = 0; i < N * F; i++) {
    const s = 1 / (1 + Math.exp(-gate[i]))
    const rest = 1 / (1 + Math.exp(gate[i]))
    dgate[i] = dy[i] * up[i] * s * (1 + gate[i] * rest)
    dup[i] = dy[i] * gate[i] * s
  }
  return { dgate, dup }
}

/** dx[n, d] += rstd[n] (weight[d] dy[n, d] - x[n, d] rstd[n]^2 / D sum over e of weight[e] dy[n, e] x[n, e]) */
export const rms_norm_grad: Reference = (tensors, { N, D }) => {
  const { x, weight, rstd, dy } = tensors
  const dx = Float64Array.from(tensors.dx)
  for (let n = 0; n < N; n++) {
    let sum = 0
    for (let d = 0; d < D; d++) sum += weight[d] * dy[n * D + d] * x[n * D + d]
    for (let d = 0; d < D; d++)
      dx[n * D + d] += rstd[n] * (weight[d] * dy[n * D + d] - (x[n * D + d] * rstd[n] ** 2 * sum) / D)
  }
  return { dx }
}

/** y[rows[b], d] = x[b, d] */
export const scatter_rows: Reference = (tensors, { B, D }) => {
  const y = Float64Array.from(tensors.y)
  for (let b = 0; b < B; b++) for (let d = 0; d < D; d++) y[tensors.rows[b] * D + d] = tensors.x[b * D + d]
  return { y }
}

/** Running largest, sum of exponentials, sum of products and value of the target; see the shader */
export const cross_entropy: Reference = (tensors, { R, B, first, scale }) => {
  const { x, wanted } = tensors
  const of = (name: string) => Float64Array.from(tensors[name])
  const [top, total, spread, hit] = [of('top'), of('total'), of('spread'), of('hit')]
  for (let r = 0; r < R; r++) {
    const before = top[r]
    for (let b = 0; b < B; b++) top[r] = Math.max(top[r], scale * x[r * B + b])
    const worth = Math.exp(before - top[r])
    spread[r] = worth * (spread[r] + total[r] * (before - top[r]))
    total[r] *= worth
    for (let b = 0; b < B; b++) {
      const z = scale * x[r * B + b] - top[r]
      total[r] += Math.exp(z)
      spread[r] += Math.exp(z) * z
      if (first + b === wanted[r]) hit[r] = scale * x[r * B + b]
    }
  }
  return { top, total, spread, hit }
}

/** x[r, b] = coefficient[r] scale (exp(scale x[r, b] - lse[r]) - (first + b == wanted[r] ? 1 : 0)) */
export const cross_entropy_grad: Reference = (tensors, { R, B, first, scale }) => {
  const x = Float64Array.from(tensors.x)
  for (let r = 0; r < R; r++)
    for (let b = 0; b < B; b++) {
      const p = Math.exp(scale * x[r * B + b] - tensors.lse[r])
      x[r * B + b] = tensors.coefficient[r] * scale * (p - (first + b === tensors.wanted[r] ? 1 : 0))
    }
  return { x }
}

/** The mask's hash in whole numbers of any size. */
function keeps(key: number, stream: number, d: number, threshold: number): boolean {
  const word = 2n ** 32n
  let h = ((BigInt(d + 1) * 0x9e3779b9n) % word) ^ ((BigInt(key) + BigInt(stream) * 0x85ebca6bn) % word)
  h = ((h ^ (h >> 16n)) * 0x85ebca6bn) % word
  h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) % word
  return (h ^ (h >> 16n)) >= BigInt(threshold)
}

/** y[n, d] = keep(key[n], stream, d) ? x[n, d] * scale : 0 */
export const dropout: Reference = ({ x, key }: Values, { N, D, stream, threshold, scale }) => {
  const y = new Float64Array(N * D)
  for (let n = 0; n < N; n++)
    for (let d = 0; d < D; d++) y[n * D + d] = keeps(key[n], stream, d, threshold) ? x[n * D + d] * scale : 0
  return { y }
}

/** stats[n, h] = (lse[n, h], sum over c of dy[n, h, c] y[n, h, c]) */
export const attention_delta: Reference = ({ y, dy, lse }, { N, H, C }) => {
  const stats = new Float64Array(2 * N * H)
  for (let i = 0; i < N * H; i++) {
    stats[2 * i] = lse[i]
    for (let c = 0; c < C; c++) stats[2 * i + 1] += dy[i * C + c] * y[i * C + c]
  }
  return { stats }
}

const dot = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number, C: number): number => {
  let sum = 0
  for (let c = 0; c < C; c++) sum += a[i * C + c] * b[j * C + c]
  return sum
}

/** dq[n, h] = scale * sum over keys of p (dy . v - delta) k with p = exp(scale q . k - lse); see the shader */
export const attention_grad_query: Reference = ({ q, k, v, plan, dy, stats }, { N, H, C, G, B, scale }) => {
  const dq = new Float64Array(N * H * C)
  for (let b = 0; b < B; b++) {
    const [first, count, prefix, ahead, own, position] = Array.from({ length: 6 }, (_, i) => plan[b * 6 + i])
    for (let i = 0; i < count; i++)
      for (let h = 0; h < H; h++) {
        const at = (first + i) * H + h
        for (let j = 0; j <= ahead + position + i; j++) {
          const key = (j < ahead ? prefix + j : own + j - ahead) * G + Math.floor((h * G) / H)
          const p = Math.exp(scale * dot(q, at, k, key, C) - stats[2 * at])
          const slope = scale * p * (dot(dy, at, v, key, C) - stats[2 * at + 1])
          for (let c = 0; c < C; c++) dq[at * C + c] += slope * k[key * C + c]
        }
      }
  }
  return { dq }
}

/** dv[m, g] = sum over queries of p dy, dk[m, g] = scale * sum of p (dy . v - delta) q; see the shader */
export const attention_grad_key_value: Reference = ({ q, k, v, plan, dy, stats }, { N, H, C, G, B, scale }) => {
  const [dk, dv] = [new Float64Array(N * G * C), new Float64Array(N * G * C)]
  for (let b = 0; b < B; b++) {
    const [first, count, stop] = Array.from({ length: 3 }, (_, i) => plan[b * 3 + i])
    for (let m = first; m < first + count; m++)
      for (let n = m; n < stop; n++)
        for (let h = 0; h < H; h++) {
          const [at, key] = [n * H + h, m * G + Math.floor((h * G) / H)]
          const p = Math.exp(scale * dot(q, at, k, key, C) - stats[2 * at])
          const slope = scale * p * (dot(dy, at, v, key, C) - stats[2 * at + 1])
          for (let c = 0; c < C; c++) {
            dv[key * C + c] += p * dy[at * C + c]
            dk[key * C + c] += slope * q[at * C + c]
          }
        }
  }
  return { dk, dv }
}

/** x[n] = x[n] * factor */
export const scale: Reference = ({ x }, { factor }) => ({ x: Float64Array.from(x, (value) => value * factor) })
