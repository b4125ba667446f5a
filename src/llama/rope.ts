// The rotary embedding: its settings in config.json, and the angles and factor that follow from them.
// Sources: modeling_rope_utils of Hugging Face transformers (both the `rope_scaling` spelling and the newer `rope_parameters`); Su et
// al. 2021 for rotary embeddings; Chen et al. 2023 for linear scaling; Peng et al. 2023 for YaRN; the Llama 3.1 release for llama3.
import { isObject, show } from '../files/json.ts'
import { readFlag, readNumber, readSize } from './config_fields.ts'

/** The `llama3` scaling of low rotary frequencies. */
export interface Llama3Scaling {
  readonly type: 'llama3'
  readonly factor: number
  readonly lowFreqFactor: number
  readonly highFreqFactor: number
  readonly originalMaxPosition: number
}

/** The `linear` scaling: positions are divided by `factor`. */
export interface LinearScaling {
  readonly type: 'linear'
  readonly factor: number
}

/** The `yarn` scaling: channels that turn slowly are divided by `factor`, fast ones kept, and cosine and sine are multiplied. */
export interface YarnScaling {
  readonly type: 'yarn'
  readonly factor: number
  /** Turns over the original length above which a channel is kept, and below which it is divided. */
  readonly betaFast: number
  readonly betaSlow: number
  /** Whether the bounds between which channels are blended are whole channels. */
  readonly truncate: boolean
  /** What cosine and sine are multiplied by. */
  readonly attentionFactor: number
  readonly originalMaxPosition: number
}

/**
 * How frequencies differ from the plain ones. The `dynamic` scaling of transformers has an effect only above
 * max_position_embeddings, which is the longest sequence here, so it counts as none.
 */
export type RopeScaling = Llama3Scaling | LinearScaling | YarnScaling

export interface Rope {
  readonly ropeTheta: number
  readonly ropeScaling: RopeScaling | null
}

/** Reads theta and scaling of a config.json. Throws `NAME: ...` on unknown types, impossible numbers and spellings that differ. */
export function readRope(json: Record<string, unknown>, name: string): Rope {
  const older = readRopeFrom('rope_scaling', json, name)
  if (json.rope_parameters == null) return older
  const newer = readRopeFrom('rope_parameters', json, name)
  if (json.rope_scaling != null && show(older) !== show(newer)) {
    throw new Error(`${name}: rope_scaling and rope_parameters differ: ${show(older)} and ${show(newer)}`)
  }
  return newer
}

const TYPES = ['default', 'linear', 'dynamic', 'yarn', 'llama3']

function readRopeFrom(key: 'rope_scaling' | 'rope_parameters', json: Record<string, unknown>, name: string): Rope {
  const where = `${name}: ${key}`
  const given = json[key] ?? {}
  if (!isObject(given)) throw new Error(`${where}: must be an object, got ${show(given)}`)
  const type = given.rope_type ?? given.type ?? 'default'
  if (typeof type !== 'string' || !TYPES.includes(type)) {
    throw new Error(`${where}: rope_type must be one of ${TYPES.join(', ')}, got ${show(type)}`)
  }
  const partial = given.partial_rotary_factor ?? json.partial_rotary_factor ?? 1
  if (partial !== 1) throw new Error(`${where}: partial_rotary_factor must be 1, got ${show(partial)}`)
  const theta = given.rope_theta ?? json.rope_theta
  const ropeTheta = readNumber({ rope_theta: theta }, 'rope_theta', name, 10000, { above: 0 })
  return { ropeTheta, ropeScaling: readScaling(type, given, json, where) }
}

function readScaling(
  type: string,
  given: Record<string, unknown>,
  json: Record<string, unknown>,
  where: string,
): RopeScaling | null {
  if (type === 'default') return null
  const readFactor = (): number => readNumber(given, 'factor', where, null, { above: 0 })
  if (type === 'linear') return { type, factor: readFactor() }
  if (type === 'dynamic') {
    readFactor()
    return null
  }
  // As transformers does: beside the scaling, in it, or the length of the model.
  const field = 'original_max_position_embeddings'
  const value = json[field] ?? (field in given ? given[field] : json.max_position_embeddings)
  const originalMaxPosition = readSize({ [field]: value }, field, where, 2 ** 31)
  if (type === 'yarn') return readYarn(given, originalMaxPosition, json, where)
  const factor = readFactor()
  const lowFreqFactor = readNumber(given, 'low_freq_factor', where, null, { above: 0 })
  const highFreqFactor = readNumber(given, 'high_freq_factor', where, null, { above: lowFreqFactor })
  return { type: 'llama3', factor, lowFreqFactor, highFreqFactor, originalMaxPosition }
}

function readYarn(
  given: Record<string, unknown>,
  originalMaxPosition: number,
  json: Record<string, unknown>,
  where: string,
): YarnScaling {
  const longest = readSize(json, 'max_position_embeddings', where, 2 ** 31)
  const factor = readNumber(given, 'factor', where, longest / originalMaxPosition, { above: 0 })
  const [mscale, mscaleAllDim] = ['mscale', 'mscale_all_dim'].map((key) =>
    given[key] == null || given[key] === 0 ? null : readNumber(given, key, where, null, { above: 0 }),
  )
  const byLength = mscale && mscaleAllDim ? grown(factor, mscale) / grown(factor, mscaleAllDim) : grown(factor, 1)
  const betaSlow = readNumber(given, 'beta_slow', where, 1, { above: 0 })
  return {
    type: 'yarn',
    factor,
    betaFast: readNumber(given, 'beta_fast', where, 32, { above: betaSlow }),
    betaSlow,
    truncate: given.truncate == null || readFlag(given, 'truncate', where),
    attentionFactor: readNumber(given, 'attention_factor', where, byLength, { above: 0 }),
    originalMaxPosition,
  }
}

/** YaRN's fit of how much sharper attention must be in a text `factor` times as long. */
function grown(factor: number, scale: number): number {
  return factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1
}

/**
 * The angles per position of the rotary embedding, radians, float64 [C / 2]:
 *   f[e] = theta^(-2 e / C)
 * With linear scaling all are divided by factor. With llama3 scaling, frequencies whose wavelength 2 pi / f is above
 * originalMaxPosition / lowFreqFactor are divided by factor, those below originalMaxPosition / highFreqFactor are kept, and those
 * between are blended linearly in s = (originalMaxPosition / wavelength - low) / (high - low):  f' = (1 - s) f / factor + s f.
 * With yarn scaling the blend is linear in the channel e, from the one that turns betaFast times over originalMaxPosition to the
 * one that turns betaSlow times.
 */
export function inverseFrequencies(rope: Rope & { readonly headDim: number }): Float64Array {
  const { headDim, ropeTheta, ropeScaling: scaling } = rope
  const frequencies = Float64Array.from({ length: headDim / 2 }, (_, e) => ropeTheta ** ((-2 * e) / headDim))
  if (scaling === null) return frequencies
  const { factor } = scaling
  if (scaling.type === 'linear') return frequencies.map((frequency) => frequency / factor)
  const keep = scaling.type === 'yarn' ? yarnShare(rope, scaling) : llama3Share(scaling)
  return frequencies.map((frequency, e) => {
    const share = keep(frequency, e)
    return ((1 - share) * frequency) / factor + share * frequency
  })
}

/** What cosine and sine are multiplied by. */
export function attentionFactor({ ropeScaling }: Rope): number {
  return ropeScaling?.type === 'yarn' ? ropeScaling.attentionFactor : 1
}

type Share = (frequency: number, e: number) => number

function llama3Share({ lowFreqFactor, highFreqFactor, originalMaxPosition }: Llama3Scaling): Share {
  return (frequency) => {
    const turns = (originalMaxPosition * frequency) / (2 * Math.PI) // originalMaxPosition / wavelength
    return Math.min(1, Math.max(0, (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)))
  }
}

function yarnShare({ headDim, ropeTheta }: Rope & { readonly headDim: number }, scaling: YarnScaling): Share {
  const { betaFast, betaSlow, truncate, originalMaxPosition } = scaling
  const channelOf = (turns: number): number =>
    (headDim * Math.log(originalMaxPosition / (turns * 2 * Math.PI))) / (2 * Math.log(ropeTheta))
  const [low, high] = [channelOf(betaFast), channelOf(betaSlow)]
  const first = Math.max(0, truncate ? Math.floor(low) : low)
  const last = Math.min(headDim - 1, truncate ? Math.ceil(high) : high)
  // As in transformers, a step where the bounds are one.
  const width = last === first ? 0.001 : last - first
  return (_, e) => 1 - Math.min(1, Math.max(0, (e - first) / width))
}
