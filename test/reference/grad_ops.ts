// Kernels of training in float64, by loops over the formula in each shader's header.
import type { Reference } from './ops.ts'

/** dx[n, d] = sum over o of dy[n, o] * weight[o, d] */
export const linear_grad_input: Reference = ({ dy, weight }, { N, D, O }) => {
  const dx = new Float64Array(N * D)
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < O; o++) {
      for (let d = 0; d < D; d++) dx[n * D + d] += dy[n * O + o] * weight[o * D + d]
    }
  }
  return { dx }
}

/** dweight[o, d] = sum over n of dy[n, o] * x[n, d] */
export const linear_grad_weight: Reference = ({ dy, x }, { N, D, O }) => {
  const dweight = new Float64Array(O * D)
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < O; o++) {
      for (let d = 0; d < D; d++) dweight[o * D + d] += dy[n * O + o] * x[n * D + d]
    }
  }
  return { dweight }
}

/** dbias[o] = sum over n of dy[n, o] */
export const bias_grad: Reference = ({ dy }, { N, O }) => {
  const dbias = new Float64Array(O)
  for (let n = 0; n < N; n++) for (let o = 0; o < O; o++) dbias[o] += dy[n * O + o]
  return { dbias }
}

/** dy[n, d] = y[n, d] > 0 ? dy[n, d] : 0 */
export const relu_grad: Reference = ({ y, dy }, { N, D }) => {
  const out = new Float64Array(N * D)
  for (let i = 0; i < N * D; i++) out[i] = y[i] > 0 ? dy[i] : 0
  return { dy: out }
}

/** mean[d] and variance[d] over the rows, the variance divided by their number */
export const batch_norm_stats: Reference = ({ x }, { N, D }) => {
  const mean = new Float64Array(D)
  const variance = new Float64Array(D)
  for (let d = 0; d < D; d++) {
    // From the first row on, so that equal values have a variance of 0 exactly.
    for (let n = 0; n < N; n++) mean[d] += (x[n * D + d] - x[d]) / N
    mean[d] += x[d]
    for (let n = 0; n < N; n++) variance[d] += (x[n * D + d] - mean[d]) ** 2 / N
  }
  return { mean, variance }
}

/** running = (1 - momentum) running + momentum * that of the batch, its variance unbiased */
export const batch_norm_update: Reference = (tensors, { D, momentum, rows }) => {
  const running_mean = new Float64Array(D)
  const running_variance = new Float64Array(D)
  for (let d = 0; d < D; d++) {
    running_mean[d] = (1 - momentum) * tensors.running_mean[d] + momentum * tensors.mean[d]
    const unbiased = (tensors.variance[d] * rows) / (rows - 1)
    running_variance[d] = (1 - momentum) * tensors.running_variance[d] + momentum * unbiased
  }
  return { running_mean, running_variance }
}

/** dx, dweight and dbias of batch_norm with the statistics of the batch */
export const batch_norm_grad: Reference = ({ x, mean, variance, weight, dy }, { N, D, eps }) => {
  const dx = new Float64Array(N * D)
  const dweight = new Float64Array(D)
  const dbias = new Float64Array(D)
  for (let d = 0; d < D; d++) {
    const r = 1 / Math.sqrt(variance[d] + eps)
    const h = (n: number) => (x[n * D + d] - mean[d]) * r
    for (let n = 0; n < N; n++) {
      dweight[d] += dy[n * D + d] * h(n)
      dbias[d] += dy[n * D + d]
    }
    for (let n = 0; n < N; n++) dx[n * D + d] = weight[d] * r * (dy[n * D + d] - dbias[d] / N - (h(n) * dweight[d]) / N)
  }
  return { dx, dweight, dbias }
}

/** dx[n, d] = y[n, d] / temperature * (dy[n, d] - sum over e of dy[n, e] y[n, e] / scale) */
export const softmax_grad: Reference = ({ y, dy }, { N, D, temperature, scale }) => {
  const dx = new Float64Array(N * D)
  for (let n = 0; n < N; n++) {
    let sum = 0
    for (let d = 0; d < D; d++) sum += dy[n * D + d] * y[n * D + d]
    for (let d = 0; d < D; d++) dx[n * D + d] = (y[n * D + d] / temperature) * (dy[n * D + d] - sum / scale)
  }
  return { dx }
}

/** margin[b] = margin_scale g[b] . r[b], loss[b] = ln(1 + exp(-margin[b])), dg = derivative of the mean loss */
export const bradley_terry: Reference = ({ g, r }, { B, M, margin_scale }) => {
  const margin = new Float64Array(B)
  const loss = new Float64Array(B)
  const dg = new Float64Array(B * M)
  for (let b = 0; b < B; b++) {
    for (let m = 0; m < M; m++) margin[b] += margin_scale * g[b * M + m] * r[b * M + m]
    loss[b] = margin[b] > 0 ? Math.log1p(Math.exp(-margin[b])) : Math.log1p(Math.exp(margin[b])) - margin[b]
    const wrong = 1 / (1 + Math.exp(margin[b]))
    for (let m = 0; m < M; m++) dg[b * M + m] = (-wrong * margin_scale * r[b * M + m]) / B
  }
  return { margin, loss, dg }
}

/** One step of AdamW; see the shader */
export const adamw: Reference = (tensors, sizes) => {
  const { N, lr, beta1, beta2, rest1, rest2, eps, weight_decay, correction1, correction2 } = sizes
  const param = new Float64Array(N)
  const m = new Float64Array(N)
  const v = new Float64Array(N)
  for (let i = 0; i < N; i++) {
    m[i] = beta1 * tensors.m[i] + rest1 * tensors.grad[i]
    v[i] = beta2 * tensors.v[i] + rest2 * tensors.grad[i] ** 2
    const step = (lr / correction1) * (m[i] / (Math.sqrt(v[i] / correction2) + eps))
    param[i] = (1 - lr * weight_decay) * tensors.param[i] - step
  }
  return { param, m, v }
}

/** sums[first + b] = sum over block b of x[n]^2, blocks of 4096 */
export const square_sums: Reference = (tensors, { N, first }) => {
  const sums = Float64Array.from(tensors.sums)
  for (let b = 0; b * 4096 < N; b++) {
    sums[first + b] = 0
    for (let n = 4096 * b; n < Math.min(N, 4096 * (b + 1)); n++) sums[first + b] += tensors.x[n] ** 2
  }
  return { sums }
}

/** clip = [sqrt(sum of sums), min(1, max_norm / (norm + 1e-6))] */
export const clip_factor: Reference = ({ sums }, { P, max_norm }) => {
  let sum = 0
  for (let p = 0; p < P; p++) sum += sums[p]
  const norm = Math.sqrt(sum)
  return { clip: Float64Array.of(norm, max_norm > 0 ? Math.min(1, max_norm / (norm + 1e-6)) : 1) }
}

/** grad[n] *= clip[1] */
export const clip_scale: Reference = ({ grad, clip }, { N }) => {
  const scaled = new Float64Array(N)
  for (let n = 0; n < N; n++) scaled[n] = grad[n] * clip[1]
  return { grad: scaled }
}
