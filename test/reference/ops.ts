// Every kernel in float64, by loops over the formula in its shader's header: slow, and meant to be obviously right.

/** Tensors of a call by name, row-major. */
export type Values = Readonly<Record<string, ArrayLike<number>>>
/** Shape letters and scalars of a call by name. */
export type Sizes = Readonly<Record<string, number>>
/** Gives the tensors that the kernel writes; the inputs stay as they are. */
export type Reference = (tensors: Values, sizes: Sizes) => Record<string, Float64Array>

/** y[n, d] = table[tokens[n], d] */
export const embedding: Reference = ({ table, tokens }, { N, D }) => {
  const y = new Float64Array(N * D)
  for (let n = 0; n < N; n++) for (let d = 0; d < D; d++) y[n * D + d] = table[tokens[n] * D + d]
  return { y }
}

/** rstd[n] = 1 / sqrt(mean over d of x[n, d]^2 + eps);  y[n, d] = x[n, d] * rstd[n] * weight[d] */
export const rms_norm: Reference = ({ x, weight }, { N, D, eps }) => {
  const y = new Float64Array(N * D)
  const rstd = new Float64Array(N)
  for (let n = 0; n < N; n++) {
    let squares = 0
    for (let d = 0; d < D; d++) squares += x[n * D + d] ** 2
    rstd[n] = 1 / Math.sqrt(squares / D + eps)
    for (let d = 0; d < D; d++) y[n * D + d] = x[n * D + d] * rstd[n] * weight[d]
  }
  return { y, rstd }
}

/** y[n, o] = sum over d of x[n, d] * weight[o, d] */
export const linear: Reference = ({ x, weight }, { N, D, O }) => {
  const y = new Float64Array(N * O)
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < O; o++) {
      let sum = 0
      for (let d = 0; d < D; d++) sum += x[n * D + d] * weight[o * D + d]
      y[n * O + o] = sum
    }
  }
  return { y }
}

/** Turns (x[n, h, 0, e], x[n, h, 1, e]) by the angle of position[n], whose cosine and sine are in the tables. */
export const rope: Reference = (tensors, { N, H, E }) => {
  const x = Float64Array.from(tensors.x)
  for (let n = 0; n < N; n++) {
    for (let h = 0; h < H; h++) {
      for (let e = 0; e < E; e++) {
        const cos = tensors.cos[tensors.position[n] * E + e]
        const sin = tensors.sin[tensors.position[n] * E + e]
        const at = (n * H + h) * 2 * E + e
        const a = x[at]
        const b = x[at + E]
        x[at] = a * cos - b * sin
        x[at + E] = b * cos + a * sin
      }
    }
  }
  return { x }
}

/** For each block of `plan` and its queries n: y[n, h] = sum over keys of softmax(scale * q[n, h] . k[g]) * v[g] with g = floor(h * G / H), and lse */
export const attention: Reference = ({ q, k, v, plan }, { Q, H, C, G, B, scale }) => {
  const y = new Float64Array(Q * H * C)
  const lse = new Float64Array(Q * H)
  for (let b = 0; b < B; b++) {
    const [first, count, prefix, ahead, own, position] = Array.from({ length: 6 }, (_, i) => plan[b * 6 + i])
    const row = (j: number) => (j < ahead ? prefix + j : own + j - ahead)
    for (let i = 0; i < count; i++) {
      const n = first + i
      for (let h = 0; h < H; h++) {
        const g = Math.floor((h * G) / H)
        const scores: number[] = []
        for (let j = 0; j <= ahead + position + i; j++) {
          let score = 0
          for (let c = 0; c < C; c++) score += q[(n * H + h) * C + c] * k[(row(j) * G + g) * C + c]
          scores.push(score * scale)
        }
        const top = Math.max(...scores)
        const sum = scores.reduce((total, score) => total + Math.exp(score - top), 0)
        lse[n * H + h] = top + Math.log(sum)
        for (const [j, score] of scores.entries()) {
          const p = Math.exp(score - top) / sum
          for (let c = 0; c < C; c++) y[(n * H + h) * C + c] += p * v[(row(j) * G + g) * C + c]
        }
      }
    }
  }
  return { y, lse }
}

/**
 * As `attention`, of one query a sequence on rows of a cache [M, 2 G C], keys before values:
 * (count, prefix, ahead, own) = plan[n] are its keys.
 */
export const attention_decode: Reference = ({ q, kv, plan }, { N, H, C, W, scale }) => {
  const G = W / 2 / C
  const y = new Float64Array(N * H * C)
  for (let n = 0; n < N; n++) {
    const [count, prefix, ahead, own] = Array.from({ length: 4 }, (_, i) => plan[n * 4 + i])
    const row = (j: number) => (j < ahead ? prefix + j : own + j - ahead)
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H)
      const scores: number[] = []
      for (let j = 0; j < count; j++) {
        let score = 0
        for (let c = 0; c < C; c++) score += q[(n * H + h) * C + c] * kv[row(j) * W + g * C + c]
        scores.push(score * scale)
      }
      const top = Math.max(...scores)
      const sum = scores.reduce((total, score) => total + Math.exp(score - top), 0)
      for (const [j, score] of scores.entries()) {
        const p = Math.exp(score - top) / sum
        for (let c = 0; c < C; c++) y[(n * H + h) * C + c] += p * kv[row(j) * W + (G + g) * C + c]
      }
    }
  }
  return { y }
}

/** y[n, f] = gate[n, f] / (1 + exp(-gate[n, f])) * up[n, f] */
export const swiglu: Reference = ({ gate, up }, { N, F }) => {
  const y = new Float64Array(N * F)
  for (let i = 0; i < N * F; i++) y[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i]
  return { y }
}

/** x[n, d] += y[n, d] */
export const add: Reference = ({ x, y }, { N, D }) => {
  const sum = new Float64Array(N * D)
  for (let i = 0; i < N * D; i++) sum[i] = x[i] + y[i]
  return { x: sum }
}

/** x[n, o] += bias[o] */
export const bias_add: Reference = ({ x, bias }, { N, O }) => {
  const sum = new Float64Array(N * O)
  for (let n = 0; n < N; n++) for (let o = 0; o < O; o++) sum[n * O + o] = x[n * O + o] + bias[o]
  return { x: sum }
}

/** y[b, d] = x[rows[b], d] */
export const gather_rows: Reference = ({ x, rows }, { D, B }) => {
  const y = new Float64Array(B * D)
  for (let b = 0; b < B; b++) for (let d = 0; d < D; d++) y[b * D + d] = x[rows[b] * D + d]
  return { y }
}

/** y[n, d] = exp(x[n, d] / temperature) / (sum over e of exp(x[n, e] / temperature)) * scale */
export const softmax: Reference = ({ x }, { N, D, temperature, scale }) => {
  const y = new Float64Array(N * D)
  for (let n = 0; n < N; n++) {
    let top = -Infinity
    for (let d = 0; d < D; d++) top = Math.max(top, x[n * D + d])
    let sum = 0
    for (let d = 0; d < D; d++) sum += Math.exp((x[n * D + d] - top) / temperature)
    for (let d = 0; d < D; d++) y[n * D + d] = (Math.exp((x[n * D + d] - top) / temperature) / sum) * scale
  }
  return { y }
}

/** x[n, d] = max(x[n, d], 0) */
export const relu: Reference = ({ x }, { N, D }) => {
  const y = new Float64Array(N * D)
  for (let i = 0; i < N * D; i++) y[i] = Math.max(x[i], 0)
  return { x: y }
}

/** y[n, d] = (x[n, d] - mean[d]) / sqrt(variance[d] + eps) * weight[d] + bias[d] */
export const batch_norm: Reference = ({ x, mean, variance, weight, bias }, { N, D, eps }) => {
  const y = new Float64Array(N * D)
  for (let n = 0; n < N; n++) {
    for (let d = 0; d < D; d++) {
      y[n * D + d] = ((x[n * D + d] - mean[d]) / Math.sqrt(variance[d] + eps)) * weight[d] + bias[d]
    }
  }
  return { y }
}

/** y[n] = x[n] */
export const copy: Reference = ({ x }) => ({ y: Float64Array.from(x) })

/** y[first + n, d] = x[n, d], for the rows that y has */
export const copy_rows: Reference = (tensors, { N, D, M, first }) => {
  const y = Float64Array.from(tensors.y)
  for (let n = 0; n < N && first + n < M; n++) for (let d = 0; d < D; d++) y[(first + n) * D + d] = tensors.x[n * D + d]
  return { y }
}

/** kv[rows[n]] = k[n], then v[n]; rows from M on are left out */
export const cache_rows: Reference = (tensors, { N, M, W }) => {
  const kv = Float64Array.from(tensors.kv)
  const half = W / 2
  for (let n = 0; n < N; n++) {
    const row = tensors.rows[n]
    if (row >= M) continue
    for (let d = 0; d < half; d++) {
      kv[row * W + d] = tensors.k[n * half + d]
      kv[row * W + half + d] = tensors.v[n * half + d]
    }
  }
  return { kv }
}

/** x[n] = value */
export const fill: Reference = (_, { N, value }) => ({ x: new Float64Array(N).fill(value) })

/** rounds times: x[n] = x[n] * 0.5 + 0.25 */
export const fma: Reference = (tensors, { N, rounds }) => {
  const x = Float64Array.from(tensors.x)
  for (let n = 0; n < N; n++) {
    for (let round = 0; round < rounds; round++) {
      const next = x[n] * 0.5 + 0.25
      // 0.5 stays what it is in all rounds to come.
      if (next === x[n]) break
      x[n] = next
    }
  }
  return { x }
}
