// The whole Llama forward pass in float64, one sequence at a time, in plain loops: slow, and meant to be obviously right.
// Source: Touvron et al. 2023; Ainslie et al. 2023 (grouped queries); Su et al. 2021 (RoPE); the Llama 3.1 release (its scaling).

/** Sizes of a Llama, by the shape letters of the project. */
export interface Shape {
  readonly D: number
  readonly L: number
  readonly H: number
  readonly G: number
  readonly C: number
  readonly eps: number
  /** RoPE's radians per position, [C / 2]. */
  readonly frequencies: Float64Array
}

interface Rope {
  rope_theta?: number
  rope_type?: string
  factor: number
  low_freq_factor: number
  high_freq_factor: number
  original_max_position_embeddings: number
}

/** Reads a config.json. */
export function readShape(json: Record<string, unknown>): Shape {
  const D = json.hidden_size as number
  const H = json.num_attention_heads as number
  const C = (json.head_dim as number | undefined) ?? D / H
  const rope = (json.rope_parameters ?? json.rope_scaling ?? {}) as Partial<Rope>
  const theta = (json.rope_theta as number | undefined) ?? rope.rope_theta ?? 10000
  const frequencies = new Float64Array(C / 2)
  for (let e = 0; e < C / 2; e++) frequencies[e] = scaled(theta ** ((-2 * e) / C), rope)
  return {
    D,
    L: json.num_hidden_layers as number,
    H,
    G: (json.num_key_value_heads as number | undefined) ?? H,
    C,
    eps: json.rms_norm_eps as number,
    frequencies,
  }
}

/** Llama 3.1: long waves are stretched by the factor, short ones kept, those between blended. */
function scaled(frequency: number, rope: Partial<Rope>): number {
  if (rope.rope_type !== 'llama3') return frequency
  const {
    factor,
    low_freq_factor: low,
    high_freq_factor: high,
    original_max_position_embeddings: length,
  } = rope as Rope
  const wave = (2 * Math.PI) / frequency
  if (wave > length / low) return frequency / factor
  if (wave < length / high) return frequency
  const smooth = (length / wave - low) / (high - low)
  return ((1 - smooth) * frequency) / factor + smooth * frequency
}

/** Weights by their Hugging Face names, widened; matrices [O, D] row-major. */
export type Weights = ReadonlyMap<string, Float32Array>

/** Hidden states [T, D] after the final norm, of one sequence of token ids. */
export function llama(shape: Shape, weights: Weights, tokens: ArrayLike<number>): Float64Array {
  const { D, L, eps } = shape
  const T = tokens.length
  const weight = (name: string): Float32Array => {
    const found = weights.get(`model.${name}.weight`)
    if (!found) throw new Error(`reference: no weight model.${name}.weight`)
    return found
  }
  const table = weight('embed_tokens')
  const x = new Float64Array(T * D)
  for (let t = 0; t < T; t++) for (let d = 0; d < D; d++) x[t * D + d] = table[tokens[t] * D + d]
  for (let layer = 0; layer < L; layer++) {
    const of = (name: string) => weight(`layers.${layer}.${name}`)
    const mixed = attention(shape, of, rmsNorm(x, of('input_layernorm'), eps), T)
    for (let i = 0; i < x.length; i++) x[i] += mixed[i]
    const fed = feedForward(of, rmsNorm(x, of('post_attention_layernorm'), eps), T)
    for (let i = 0; i < x.length; i++) x[i] += fed[i]
  }
  return rmsNorm(x, weight('norm'), eps)
}

function rmsNorm(x: Float64Array, weight: Float32Array, eps: number): Float64Array {
  const D = weight.length
  const y = new Float64Array(x.length)
  for (let row = 0; row < x.length; row += D) {
    let sum = 0
    for (let d = 0; d < D; d++) sum += x[row + d] ** 2
    const root = Math.sqrt(sum / D + eps)
    for (let d = 0; d < D; d++) y[row + d] = (x[row + d] / root) * weight[d]
  }
  return y
}

/** y[n, o] = sum over d of x[n, d] * weight[o, d] */
function linear(x: Float64Array, weight: Float32Array, rows: number): Float64Array {
  const D = x.length / rows
  const O = weight.length / D
  const y = new Float64Array(rows * O)
  for (let n = 0; n < rows; n++) {
    for (let o = 0; o < O; o++) {
      let sum = 0
      for (let d = 0; d < D; d++) sum += x[n * D + d] * weight[o * D + d]
      y[n * O + o] = sum
    }
  }
  return y
}

/** Turns the channel pairs (e, e + C / 2) of every head of x [T, heads, C] by position times frequency. */
function rope(x: Float64Array, heads: number, C: number, frequencies: Float64Array): void {
  for (let t = 0; t < x.length / (heads * C); t++) {
    for (let h = 0; h < heads; h++) {
      for (let e = 0; e < C / 2; e++) {
        const i = (t * heads + h) * C + e
        const a = x[i]
        const b = x[i + C / 2]
        const angle = t * frequencies[e]
        x[i] = a * Math.cos(angle) - b * Math.sin(angle)
        x[i + C / 2] = b * Math.cos(angle) + a * Math.sin(angle)
      }
    }
  }
}

function attention(shape: Shape, of: (name: string) => Float32Array, x: Float64Array, T: number): Float64Array {
  const { H, G, C, frequencies } = shape
  const q = linear(x, of('self_attn.q_proj'), T) // [T, H, C]
  const k = linear(x, of('self_attn.k_proj'), T) // [T, G, C]
  const v = linear(x, of('self_attn.v_proj'), T) // [T, G, C]
  rope(q, H, C, frequencies)
  rope(k, G, C, frequencies)
  const y = new Float64Array(T * H * C)
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H)
      const scores: number[] = []
      for (let s = 0; s <= t; s++) {
        let sum = 0
        for (let c = 0; c < C; c++) sum += q[(t * H + h) * C + c] * k[(s * G + g) * C + c]
        scores.push(sum / Math.sqrt(C))
      }
      const largest = Math.max(...scores)
      let total = 0
      for (let s = 0; s <= t; s++) total += Math.exp(scores[s] - largest)
      for (let s = 0; s <= t; s++) {
        const p = Math.exp(scores[s] - largest) / total
        for (let c = 0; c < C; c++) y[(t * H + h) * C + c] += p * v[(s * G + g) * C + c]
      }
    }
  }
  return linear(y, of('self_attn.o_proj'), T)
}

function feedForward(of: (name: string) => Float32Array, x: Float64Array, T: number): Float64Array {
  const gate = linear(x, of('mlp.gate_proj'), T)
  const up = linear(x, of('mlp.up_proj'), T)
  for (let i = 0; i < gate.length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i]
  return linear(gate, of('mlp.down_proj'), T)
}
