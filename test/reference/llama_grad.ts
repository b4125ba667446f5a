// A Llama with LoRA adapters in float64, forward and backward, one sequence at a time, in plain loops: slow, and meant to be
// obviously right. Weights are named as in Hugging Face checkpoints, adapters as in PEFT's files without "base_model.model.".
import type { Shape } from './llama.ts'

/** Matrices and vectors by name, row-major. */
export type Arrays = ReadonlyMap<string, ArrayLike<number>>
export type Gradients = Map<string, Float64Array>

export interface Model {
  readonly shape: Shape
  readonly weights: Arrays
  /** `NAME.lora_A.weight` [r, D] and `NAME.lora_B.weight` [O, r] for adapted projections NAME. */
  readonly adapter: Arrays
  /** Factor of B A by the name of the projection. */
  readonly scaling: (name: string) => number
}

/** What a projection was given, for its backward. */
interface Projected {
  readonly name: string
  readonly x: Float64Array
  /** A x [T, r], where it is adapted. */
  readonly low: Float64Array | null
}

const rowsOf = (matrix: ArrayLike<number>, columns: number): number => matrix.length / columns

/** y[n, o] = sum over d of x[n, d] weight[o, d] */
function linear(x: Float64Array, weight: ArrayLike<number>, T: number): Float64Array {
  const D = x.length / T
  const O = rowsOf(weight, D)
  const y = new Float64Array(T * O)
  for (let n = 0; n < T; n++)
    for (let o = 0; o < O; o++) for (let d = 0; d < D; d++) y[n * O + o] += x[n * D + d] * weight[o * D + d]
  return y
}

/** dx[n, d] += factor * sum over o of dy[n, o] weight[o, d] */
function addInput(dx: Float64Array, dy: Float64Array, weight: ArrayLike<number>, T: number, factor = 1): void {
  const [D, O] = [dx.length / T, dy.length / T]
  for (let n = 0; n < T; n++)
    for (let o = 0; o < O; o++) for (let d = 0; d < D; d++) dx[n * D + d] += factor * dy[n * O + o] * weight[o * D + d]
}

/** dweight[o, d] += factor * sum over n of dy[n, o] x[n, d] */
function addWeight(grads: Gradients, name: string, dy: Float64Array, x: Float64Array, T: number, factor = 1): void {
  const [D, O] = [x.length / T, dy.length / T]
  const dweight = grads.get(name) ?? new Float64Array(O * D)
  grads.set(name, dweight)
  for (let n = 0; n < T; n++)
    for (let o = 0; o < O; o++) for (let d = 0; d < D; d++) dweight[o * D + d] += factor * dy[n * O + o] * x[n * D + d]
}

function project(model: Model, name: string, x: Float64Array, T: number): { y: Float64Array; kept: Projected } {
  const y = linear(x, model.weights.get(`${name}.weight`)!, T)
  const A = model.adapter.get(`${name}.lora_A.weight`)
  if (!A) return { y, kept: { name, x, low: null } }
  const low = linear(x, A, T)
  const added = linear(low, model.adapter.get(`${name}.lora_B.weight`)!, T)
  for (let i = 0; i < y.length; i++) y[i] += model.scaling(name) * added[i]
  return { y, kept: { name, x, low } }
}

/** Adds to dx and to the adapter's gradients. */
function unproject(
  model: Model,
  { name, x, low }: Projected,
  dy: Float64Array,
  dx: Float64Array,
  grads: Gradients,
  T: number,
) {
  addInput(dx, dy, model.weights.get(`${name}.weight`)!, T)
  if (!low) return
  const scaling = model.scaling(name)
  addWeight(grads, `${name}.lora_B.weight`, dy, low, T, scaling)
  const dlow = new Float64Array(low.length)
  addInput(dlow, dy, model.adapter.get(`${name}.lora_B.weight`)!, T, scaling)
  addWeight(grads, `${name}.lora_A.weight`, dlow, x, T)
  addInput(dx, dlow, model.adapter.get(`${name}.lora_A.weight`)!, T)
}

function rmsNorm(x: Float64Array, weight: ArrayLike<number>, eps: number): Float64Array {
  const D = weight.length
  const y = new Float64Array(x.length)
  for (let row = 0; row < x.length; row += D) {
    let squares = 0
    for (let d = 0; d < D; d++) squares += x[row + d] ** 2
    for (let d = 0; d < D; d++) y[row + d] = (x[row + d] / Math.sqrt(squares / D + eps)) * weight[d]
  }
  return y
}

/** dx[n, d] += r (w[d] dy[n, d] - x[n, d] r^2 / D * sum over e of w[e] dy[n, e] x[n, e]) with r = 1 / rms */
function addRmsNorm(dx: Float64Array, dy: Float64Array, x: Float64Array, weight: ArrayLike<number>, eps: number): void {
  const D = weight.length
  for (let row = 0; row < x.length; row += D) {
    let [squares, dot] = [0, 0]
    for (let d = 0; d < D; d++) {
      squares += x[row + d] ** 2
      dot += weight[d] * dy[row + d] * x[row + d]
    }
    const r = 1 / Math.sqrt(squares / D + eps)
    for (let d = 0; d < D; d++) dx[row + d] += r * (weight[d] * dy[row + d] - (x[row + d] * r * r * dot) / D)
  }
}

/** Turns the channel pairs (e, e + C / 2) of every head by `sign` times position times frequency. */
function rope(x: Float64Array, heads: number, { C, frequencies }: Shape, sign: number): void {
  for (let t = 0; t < x.length / (heads * C); t++)
    for (let h = 0; h < heads; h++)
      for (let e = 0; e < C / 2; e++) {
        const i = (t * heads + h) * C + e
        const [a, b, angle] = [x[i], x[i + C / 2], sign * t * frequencies[e]]
        x[i] = a * Math.cos(angle) - b * Math.sin(angle)
        x[i + C / 2] = b * Math.cos(angle) + a * Math.sin(angle)
      }
}

/** Weights of the keys s <= t for query t of head h. */
function shares(q: Float64Array, k: Float64Array, t: number, h: number, { H, G, C }: Shape): number[] {
  const g = Math.floor((h * G) / H)
  const scores = Array.from({ length: t + 1 }, (_, s) => {
    let sum = 0
    for (let c = 0; c < C; c++) sum += q[(t * H + h) * C + c] * k[(s * G + g) * C + c]
    return sum / Math.sqrt(C)
  })
  const largest = Math.max(...scores)
  const total = scores.reduce((sum, score) => sum + Math.exp(score - largest), 0)
  return scores.map((score) => Math.exp(score - largest) / total)
}

function attend(q: Float64Array, k: Float64Array, v: Float64Array, shape: Shape, T: number): Float64Array {
  const { H, G, C } = shape
  const y = new Float64Array(T * H * C)
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H)
      for (const [s, p] of shares(q, k, t, h, shape).entries())
        for (let c = 0; c < C; c++) y[(t * H + h) * C + c] += p * v[(s * G + g) * C + c]
    }
  return y
}

/** Gradients of q, k and v. */
export function attentionGrad(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  dy: Float64Array,
  shape: Shape,
  T: number,
) {
  const { H, G, C } = shape
  const [dq, dk, dv] = [q, k, v].map((array) => new Float64Array(array.length))
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H)
      const p = shares(q, k, t, h, shape)
      const dp = p.map((_, s) => {
        let sum = 0
        for (let c = 0; c < C; c++) sum += dy[(t * H + h) * C + c] * v[(s * G + g) * C + c]
        return sum
      })
      const mean = p.reduce((sum, share, s) => sum + share * dp[s], 0)
      for (const [s, share] of p.entries()) {
        const dscore = (share * (dp[s] - mean)) / Math.sqrt(C)
        for (let c = 0; c < C; c++) {
          const [i, j] = [(t * H + h) * C + c, (s * G + g) * C + c]
          dq[i] += dscore * k[j]
          dk[j] += dscore * q[i]
          dv[j] += share * dy[i]
        }
      }
    }
  return { dq, dk, dv }
}

const silu = (x: number): number => x / (1 + Math.exp(-x))

/** Final states [T, D] of one sequence, and the way back: gradients of the adapter, added to `grads`, from that of the states. */
export function llamaStates(model: Model, tokens: ArrayLike<number>) {
  const { shape, weights } = model
  const { D, L, H, G, eps } = shape
  const T = tokens.length
  const weight = (name: string) => weights.get(`model.${name}.weight`)!
  const table = weight('embed_tokens')
  const x = new Float64Array(T * D)
  for (let t = 0; t < T; t++) for (let d = 0; d < D; d++) x[t * D + d] = table[tokens[t] * D + d]
  const back: ((dx: Float64Array, grads: Gradients) => void)[] = []
  for (let layer = 0; layer < L; layer++) {
    const name = (part: string) => `model.layers.${layer}.${part}`
    const normed = (part: string) => weights.get(`${name(part)}.weight`)!
    {
      const before = x.slice()
      const h = rmsNorm(before, normed('input_layernorm'), eps)
      const [q, k, v] = ['q_proj', 'k_proj', 'v_proj'].map((p) => project(model, name(`self_attn.${p}`), h, T))
      rope(q.y, H, shape, 1)
      rope(k.y, G, shape, 1)
      const mixed = attend(q.y, k.y, v.y, shape, T)
      const out = project(model, name('self_attn.o_proj'), mixed, T)
      for (let i = 0; i < x.length; i++) x[i] += out.y[i]
      back.push((dx, grads) => {
        const dmixed = new Float64Array(mixed.length)
        unproject(model, out.kept, dx, dmixed, grads, T)
        const { dq, dk, dv } = attentionGrad(q.y, k.y, v.y, dmixed, shape, T)
        rope(dq, H, shape, -1)
        rope(dk, G, shape, -1)
        const dh = new Float64Array(h.length)
        unproject(model, q.kept, dq, dh, grads, T)
        unproject(model, k.kept, dk, dh, grads, T)
        unproject(model, v.kept, dv, dh, grads, T)
        addRmsNorm(dx, dh, before, normed('input_layernorm'), eps)
      })
    }
    {
      const before = x.slice()
      const h = rmsNorm(before, normed('post_attention_layernorm'), eps)
      const [gate, up] = ['gate_proj', 'up_proj'].map((p) => project(model, name(`mlp.${p}`), h, T))
      const act = gate.y.map((value, i) => silu(value) * up.y[i])
      const out = project(model, name('mlp.down_proj'), act, T)
      for (let i = 0; i < x.length; i++) x[i] += out.y[i]
      back.push((dx, grads) => {
        const dact = new Float64Array(act.length)
        unproject(model, out.kept, dx, dact, grads, T)
        const dgate = dact.map((d, i) => {
          const s = 1 / (1 + Math.exp(-gate.y[i]))
          return d * up.y[i] * s * (1 + gate.y[i] * (1 - s))
        })
        const dup = dact.map((d, i) => d * silu(gate.y[i]))
        const dh = new Float64Array(h.length)
        unproject(model, gate.kept, dgate, dh, grads, T)
        unproject(model, up.kept, dup, dh, grads, T)
        addRmsNorm(dx, dh, before, normed('post_attention_layernorm'), eps)
      })
    }
  }
  const states = rmsNorm(x, weight('norm'), eps)
  const backward = (dstates: Float64Array, grads: Gradients): void => {
    const dx = new Float64Array(T * D)
    addRmsNorm(dx, dstates, x, weight('norm'), eps)
    for (const step of back.reverse()) step(dx, grads)
  }
  return { states, backward }
}

export interface Sequence {
  readonly tokens: ArrayLike<number>
  /** -100 where the token is not learned; not shifted. */
  readonly labels: ArrayLike<number>
}

/** Loss of a batch (a mean over its learned tokens), its gradients by the adapter, and the log-probability of every next token. */
export function llamaLoss(model: Model, batch: readonly Sequence[]) {
  const head = model.weights.get('lm_head.weight') ?? model.weights.get('model.embed_tokens.weight')!
  const { D } = model.shape
  const V = rowsOf(head, D)
  const learned = batch.reduce(
    (sum, { labels }) =>
      sum +
      Array.from(labels)
        .slice(1)
        .filter((l) => l !== -100).length,
    0,
  )
  const grads: Gradients = new Map()
  const logprobs: Float64Array[] = []
  let loss = 0
  for (const { tokens, labels } of batch) {
    const T = tokens.length
    const { states, backward } = llamaStates(model, tokens)
    const logits = linear(states, head, T)
    const dlogits = new Float64Array(T * V)
    const own = new Float64Array(T - 1)
    for (let t = 0; t + 1 < T; t++) {
      const row = logits.subarray(t * V, (t + 1) * V)
      const largest = Math.max(...row)
      const lse = largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0))
      own[t] = row[tokens[t + 1]] - lse
      const label = labels[t + 1]
      if (label === -100) continue
      loss -= (row[label] - lse) / learned
      for (let v = 0; v < V; v++) dlogits[t * V + v] = (Math.exp(row[v] - lse) - (v === label ? 1 : 0)) / learned
    }
    logprobs.push(own)
    const dstates = new Float64Array(T * D)
    addInput(dstates, dlogits, head, T)
    backward(dstates, grads)
  }
  return { loss, grads, logprobs }
}
