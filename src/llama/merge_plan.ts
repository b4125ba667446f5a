// What a merged model holds: its tensors, the files that they lie in, and its configuration.
import { show } from '../files/json.ts'
import type { FloatDType } from '../files/narrow.ts'
import type { SafetensorsDType, TensorInfo } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import type { Adapter, LoraWeights, ScoreHead } from './adapter_files.ts'
import { PROJECTIONS } from './adapter_plan.ts'
import type { LlamaTensors } from './weights.ts'

/** A tensor of the merged model. */
export interface MergeItem {
  readonly name: string
  readonly dtype: SafetensorsDType
  readonly shape: readonly number[]
  /** As stored. */
  readonly bytes: number
  /** What errors call it. */
  readonly where: string
  /** Where the base has it; null for a head that it does not have. */
  readonly info: TensorInfo | null
  /** What is added to it. */
  readonly lora: LoraWeights | null
  /** What stands in its place. */
  readonly score: ScoreHead | null
}

const FLOATS = ['F64', 'F32', 'F16', 'BF16']
const WIDTHS: Readonly<Record<FloatDType, number>> = { F32: 4, F16: 2, BF16: 2 }
const HEAD = 'score.weight'

/**
 * The tensors of the merged model in the files of the base. A score head takes the place of the base's head or of its output layer,
 * as in LlamaForSequenceClassification. Throws where the base has other heads.
 */
export function mergeItems(
  tensors: ReadonlyMap<string, TensorInfo>,
  found: LlamaTensors,
  adapter: Adapter,
  dtype: FloatDType | null,
  base: string,
): { readonly file: string; readonly items: MergeItem[] }[] {
  const loras = new Map<string, LoraWeights>()
  for (const [layer, projections] of adapter.layers.entries()) {
    for (const name of PROJECTIONS) {
      const lora = projections[name]
      if (lora) loras.set(found.layers[layer][name].name, lora)
    }
  }
  const { score } = adapter
  const bare = found.embedding.name === 'embed_tokens.weight'
  const isBody = (name: string) => (bare ? /^(embed_tokens|layers|norm)\./ : /^model\./).test(name)
  if (score) {
    const other = [...tensors.keys()].find((name) => !isBody(name) && name !== HEAD && name !== 'lm_head.weight')
    if (other !== undefined) {
      throw new Error(
        `${base}: has heads of its own (${show(other)}), which the score head of ${adapter.name} cannot stand beside`,
      )
    }
  }
  const bySource = new Map<Source, MergeItem[]>()
  for (const info of [...tensors.values()].sort((a, b) => a.begin - b.begin)) {
    if (score && !isBody(info.name)) continue
    const own = dtype !== null && FLOATS.includes(info.dtype) ? dtype : info.dtype
    const lora = loras.get(info.name) ?? null
    const bytes = own === info.dtype ? info.end - info.begin : count(info.shape) * WIDTHS[own as FloatDType]
    // A classifier's backbone stands under "model.".
    const name = score && bare ? `model.${info.name}` : info.name
    const where = `${info.source.name}: tensor ${show(info.name)}`
    const items = bySource.get(info.source) ?? []
    items.push({ name, dtype: own, shape: info.shape, bytes, where, info, lora, score: null })
    bySource.set(info.source, items)
  }
  const shards = [...bySource].sort(([a], [b]) => (a.name < b.name ? -1 : 1)).map(([, items]) => items)
  if (score) {
    const own = dtype ?? 'F32'
    const shape = [score.labels, score.weight.length / score.labels]
    const where = `${adapter.name}: tensor ${show(HEAD)}`
    const bytes = count(shape) * WIDTHS[own]
    shards[shards.length - 1].push({ name: HEAD, dtype: own, shape, bytes, where, info: null, lora: null, score })
  }
  const number = (n: number) => String(n).padStart(5, '0')
  const file = (i: number) =>
    shards.length === 1 ? 'model.safetensors' : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`
  return shards.map((items, i) => ({ file: file(i), items }))
}

const count = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1)

const DTYPE_NAMES: Readonly<Record<FloatDType, string>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' }

/** config.json of the merged model; null where it is that of the base. */
export function mergedConfig(
  json: Readonly<Record<string, unknown>>,
  { score }: Adapter,
  dtype: FloatDType | null,
): Record<string, unknown> | null {
  const changed: Record<string, unknown> = { ...json }
  if (dtype !== null) {
    // Transformers 5 calls it dtype, older ones torch_dtype.
    const keys = ['dtype', 'torch_dtype'].filter((key) => key in json)
    for (const key of keys.length > 0 ? keys : ['torch_dtype']) changed[key] = DTYPE_NAMES[dtype]
  }
  if (score) {
    changed.architectures = ['LlamaForSequenceClassification']
    changed.num_labels = score.labels
    delete changed.id2label
    delete changed.label2id
    if (score.labels !== 1) delete changed.problem_type
  }
  return JSON.stringify(changed) === JSON.stringify(json) ? null : changed
}
