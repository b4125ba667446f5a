// Adapters as files: adapter_config.json and adapter_model.safetensors, read strictly and written as PEFT writes them.
//
//   base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight   [r, I]   of an adapter over LlamaForCausalLM or a classifier
//   base_model.model.layers.0.self_attn.q_proj.lora_B.weight         [O, r]   of one over LlamaModel
//   base_model.model.score.weight                                    [n, D]   the head of a classifier
//
// Either kind is an adapter of the same Llama. Every tensor that the configuration asks for must be there, and no other.
import { digest } from '../files/hash.ts'
import { isObject, show } from '../files/json.ts'
import {
  encodeSafetensors,
  openSafetensors,
  readTensorF32,
  type TensorData,
  type TensorInfo,
} from '../files/safetensors.ts'
import type { ModelFiles } from '../files/source.ts'
import {
  ADAPTER_CONFIG_FILE,
  type AdapterConfig,
  adapterConfigText,
  parseAdapterConfig,
  readAdapterConfig,
} from './adapter_config.ts'
import { type LayerPlan, type LowRank, type PathPrefix, PROJECTIONS, planAdapter } from './adapter_plan.ts'
import type { LlamaConfig } from './config.ts'
import { moduleOf, type ProjectionName, shapesOf } from './weights.ts'

export const ADAPTER_FILE = 'adapter_model.safetensors'

/** What an adapter adds to a linear map: scaling * B A. */
export interface LoraWeights extends LowRank {
  /** A [r, I] */
  readonly a: Float32Array
  /** B [O, r] */
  readonly b: Float32Array
}

/** Absent: the projection is as the base has it. */
export type LayerLora = Readonly<Partial<Record<ProjectionName, LoraWeights>>>

/** A head that was trained whole. */
export interface ScoreHead {
  /** n, 1 for a reward model */
  readonly labels: number
  /** [n, D] */
  readonly weight: Float32Array
}

export interface Adapter {
  /** What errors call it. */
  readonly name: string
  readonly config: AdapterConfig
  /** [L] */
  readonly layers: readonly LayerLora[]
  /** null where the adapter has none. */
  readonly score: ScoreHead | null
}

const ROOT = 'base_model.model.'
const LABEL_LIMIT = 4096
const SHOWN = 3

/**
 * Reads an adapter for a base of these sizes. Throws as `planAdapter` does, and, with the names of the first tensors, where some are
 * missing or not asked for, have another shape than config and base give, hold no floats, or NaN or an infinity.
 */
export async function readAdapter(files: ModelFiles, base: LlamaConfig): Promise<Adapter> {
  const config = await readAdapterConfig(files)
  const source = await files.open(ADAPTER_FILE)
  if (source === null) {
    throw new Error(
      `${files.name}/${ADAPTER_FILE}: is missing; an adapter in another format must be saved again as safetensors`,
    )
  }
  try {
    const { tensors } = await openSafetensors(source)
    const prefix = prefixOf([...tensors.keys()], source.name)
    const plan = planAdapter(config, base, prefix)
    const head = `${ROOT}score.weight`
    const score = plan.score === 'required' || (plan.score === 'possible' && tensors.has(head))
    checkNames(tensors, expectedNames(plan.layers, prefix, score), source.name)
    const shapes = shapesOf(base)
    const layers: LayerLora[] = []
    for (const [layer, projections] of plan.layers.entries()) {
      const own: Partial<Record<ProjectionName, LoraWeights>> = {}
      for (const [projection, { rank, scaling }] of entriesOf(projections)) {
        const [O, I] = shapes[projection]
        const of = (part: 'A' | 'B') => tensors.get(tensorName(prefix, layer, projection, part))!
        const a = await readValues(of('A'), [rank, I])
        own[projection] = { rank, scaling, a, b: await readValues(of('B'), [O, rank]) }
      }
      layers.push(own)
    }
    return { name: files.name, config, layers, score: score ? await readScore(tensors.get(head)!, base.hidden) : null }
  } finally {
    await source.close()
  }
}

const entriesOf = <T>(layer: Readonly<Partial<Record<ProjectionName, T>>>): [ProjectionName, T][] =>
  PROJECTIONS.flatMap((name) => (layer[name] === undefined ? [] : [[name, layer[name]] as [ProjectionName, T]]))

function tensorName(prefix: PathPrefix, layer: number, projection: ProjectionName, part: 'A' | 'B'): string {
  return `${ROOT}${prefix}layers.${layer}.${moduleOf(projection)}.lora_${part}.weight`
}

/** Says of which class the adapter's model was. */
function prefixOf(names: readonly string[], where: string): PathPrefix {
  const causal = names.find((name) => name.startsWith(`${ROOT}model.layers.`))
  const bare = names.find((name) => name.startsWith(`${ROOT}layers.`))
  if (causal !== undefined && bare !== undefined) {
    throw new Error(`${where}: holds ${show(causal)} and ${show(bare)}; an adapter is of one model`)
  }
  if (causal === undefined && bare === undefined) {
    const found = names.length === 0 ? 'no tensor' : show(names[0])
    throw new Error(
      `${where}: names must begin with ${ROOT}model.layers. or ${ROOT}layers., as PEFT writes them, got ${found}`,
    )
  }
  return causal === undefined ? '' : 'model.'
}

function expectedNames(layers: readonly LayerPlan[], prefix: PathPrefix, score: boolean): string[] {
  const names = layers.flatMap((projections, layer) =>
    entriesOf(projections).flatMap(([projection]) =>
      (['A', 'B'] as const).map((part) => tensorName(prefix, layer, projection, part)),
    ),
  )
  return score ? [...names, `${ROOT}score.weight`] : names
}

/** What tensors that nothing asks for are there for. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/\.lora_magnitude_vector/, 'DoRA is not supported'],
  [/\.lora_embedding_[AB]$/, 'adapters of the embedding are not supported'],
  [/\.bias$/, 'biases that were trained are not supported'],
  [/\.token_adapter\./, 'trained tokens of the embedding are not supported'],
  [/(embed_tokens|lm_head)\./, 'embedding and output layer can be neither adapted nor trained whole'],
]

function checkNames(tensors: ReadonlyMap<string, TensorInfo>, expected: readonly string[], where: string): void {
  const missing = expected.filter((name) => !tensors.has(name))
  const wanted = new Set(expected)
  const unexpected = [...tensors.keys()].filter((name) => !wanted.has(name))
  for (const [pattern, reason] of KINDS) {
    const found = unexpected.filter((name) => pattern.test(name))
    if (found.length > 0) throw new Error(`${where}: ${list(found)} there; ${reason}`)
  }
  if (missing.length > 0) {
    throw new Error(
      `${where}: ${list(missing)} missing; ${ADAPTER_CONFIG_FILE} and the base ask for ${expected.length} tensors`,
    )
  }
  if (unexpected.length > 0) {
    throw new Error(`${where}: ${list(unexpected)} not asked for by ${ADAPTER_CONFIG_FILE} and the base`)
  }
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, SHOWN).map((name) => show(name))
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : ''
  return `${names.length === 1 ? 'tensor' : 'tensors'} ${shown.join(', ')}${more} ${names.length === 1 ? 'is' : 'are'}`
}

async function readValues(info: TensorInfo, shape: readonly number[]): Promise<Float32Array> {
  const where = `${info.source.name}: tensor ${show(info.name)}`
  if (info.shape.join() !== shape.join()) {
    throw new Error(
      `${where} must be [${shape.join(', ')}] by ${ADAPTER_CONFIG_FILE} and the base, got [${info.shape.join(', ')}]`,
    )
  }
  if (!['F32', 'BF16', 'F16'].includes(info.dtype))
    throw new Error(`${where} must be F32, BF16 or F16, got ${info.dtype}`)
  const values = await readTensorF32(info)
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0)
    throw new Error(
      `${where} must be finite, got ${values[bad]} at element ${bad}; the training diverged or the file is damaged`,
    )
  return values
}

async function readScore(info: TensorInfo, hidden: number): Promise<ScoreHead> {
  const labels = info.shape[0]
  if (info.shape.length !== 2 || labels < 1 || labels > LABEL_LIMIT) {
    throw new Error(
      `${info.source.name}: tensor ${show(info.name)} must be [labels, ${hidden}] with 1 to ${LABEL_LIMIT} labels, got [${info.shape.join(', ')}]`,
    )
  }
  return { labels, weight: await readValues(info, [labels, hidden]) }
}

/** A file of an adapter's folder: its name and its bytes in order. */
export interface AdapterFile {
  readonly file: string
  readonly chunks: readonly Uint8Array[]
}

/**
 * Encodes an adapter as the files that PEFT writes and reads, over LlamaForCausalLM or, for the task SEQ_CLS, a classifier: the same
 * keys, order and metadata, all values F32. Throws where configuration and tensors do not belong together.
 */
export function encodeAdapter({ name, config, layers, score }: Adapter, base: LlamaConfig): AdapterFile[] {
  // Without a task, PEFT notes the class of the base. The keys below are those of LlamaForCausalLM.
  const { auto_mapping: noted } = config.json
  const bare = config.task === null && isObject(noted) && noted.base_model_class === 'LlamaModel'
  const causal = config.task === 'FEATURE_EXTRACTION' || bare ? { task_type: 'CAUSAL_LM', auto_mapping: null } : {}
  const text = adapterConfigText({ ...config, json: { ...config.json, ...causal } })
  // PEFT sorts the patterns, and the first that matches decides: what is written is what must ask for these tensors.
  const written = parseAdapterConfig(JSON.parse(text) as Record<string, unknown>, `${name}: ${ADAPTER_CONFIG_FILE}`)
  const plan = planAdapter(written, base)
  const tensors: TensorData[] = []
  for (const [layer, projections] of plan.layers.entries()) {
    for (const projection of PROJECTIONS) {
      const [planned, lora] = [projections[projection], layers[layer]?.[projection]]
      if (planned === undefined && lora === undefined) continue
      if (
        planned === undefined ||
        lora === undefined ||
        planned.rank !== lora.rank ||
        planned.scaling !== lora.scaling
      ) {
        throw new Error(
          `${name}: layer ${layer} ${projection} has ${describe(lora)}, but its ${ADAPTER_CONFIG_FILE} gives it ${describe(planned)}`,
        )
      }
      const [O, I] = shapesOf(base)[projection]
      const at = (part: 'A' | 'B') => tensorName('model.', layer, projection, part)
      tensors.push({ name: at('A'), dtype: 'F32', shape: [lora.rank, I], data: lora.a })
      tensors.push({ name: at('B'), dtype: 'F32', shape: [O, lora.rank], data: lora.b })
    }
  }
  if ((score === null && plan.score === 'required') || (score !== null && plan.score === 'none')) {
    throw new Error(
      `${name}: has ${score === null ? 'no' : 'a'} score head, which does not fit task_type ${show(config.task)}`,
    )
  }
  if (score) {
    tensors.push({ name: `${ROOT}score.weight`, dtype: 'F32', shape: [score.labels, base.hidden], data: score.weight })
  }
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1))
  return [
    { file: ADAPTER_CONFIG_FILE, chunks: [new TextEncoder().encode(text)] },
    { file: ADAPTER_FILE, chunks: encodeSafetensors(tensors, { format: 'pt' }) },
  ]
}

/** SHA-256 of an adapter, 64 hexadecimal digits: of its configuration and its values, however they are stored. */
export async function hashAdapter({ config, layers, score }: Adapter): Promise<string> {
  const lines = ['pinball adapter 1', JSON.stringify(config.json)]
  const add = async (name: string, values: Float32Array) =>
    lines.push(`${name} ${await digest(new Uint8Array(Float32Array.from(values).buffer))}`)
  for (const [layer, projections] of layers.entries()) {
    for (const [projection, { rank, scaling, a, b }] of entriesOf(projections)) {
      lines.push(`${layer} ${projection} ${rank} ${scaling}`)
      await add('A', a)
      await add('B', b)
    }
  }
  if (score) await add(`score ${score.labels}`, score.weight)
  return digest(new TextEncoder().encode(lines.join('\n')))
}

const describe = (found: LowRank | undefined): string =>
  found === undefined ? 'nothing' : `rank ${found.rank} and scaling ${found.scaling}`
