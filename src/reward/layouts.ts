// The three layouts of published reward models: which tensors stand for the heads, and reading them.
//
//   qrm         LlamaForRewardModelWithGating of QRM: regression_layer.weight [M K, D], row = attribute * K + level, and .bias
//               [M K], optional; reward_transform_matrix [M, M], optional: identity; gating.layers.{0, 3, ..}.weight [H, D or H]
//               without bias, gating.layers.{2, 5, ..}: the batch norm after its ReLU [H]; gating.layers.{3 n}.weight [M, H] and
//               .bias [M]; gating.logit_scale [1]
//   armorm      the class of that name of ArmoRM: point estimates, so K = 1; gating.layers.{0, 1, .. n} with biases, no norm
//   classifier  LlamaForSequenceClassification with one label: score.weight [1, D]
//
// lm_head.weight is passed over (a reward model reads the state below it); any other tensor is an error, and so is one missing.
import { show } from '../files/json.ts'
import { readTensorF32, type TensorInfo } from '../files/safetensors.ts'
import type { Checkpoint, GateLayer } from './checkpoint.ts'

export type Layout = 'qrm' | 'armorm' | 'classifier'

/** What messages call a layout. */
const TITLES: Record<Layout, string> = {
  qrm: 'a QRM checkpoint',
  armorm: 'an ArmoRM checkpoint',
  classifier: 'a checkpoint of LlamaForSequenceClassification',
}

// Far above the published models (19 and 19, three layers of 1024).
const HEAD_LIMIT = 1024
const GATE_WIDTH_LIMIT = 65536
const GATE_DEPTH_LIMIT = 16

export interface HeadSizes {
  readonly objectives: number
  readonly quantiles: number
  /** H; 0 layers or a depth of 0 where there is no gate. */
  readonly gateWidth: number
  readonly gateDepth: number
}

/** A model with one score is a classifier; point estimates without batch norm are of ArmoRM; all else is to be a QRM. */
export function findLayout(
  config: Readonly<Record<string, unknown>>,
  tensors: ReadonlyMap<string, TensorInfo>,
): Layout {
  if (tensors.has('score.weight') && !tensors.has('regression_layer.weight')) return 'classifier'
  const norms = [...tensors.keys()].some((name) => /^gating\.layers\.\d+\.running_mean$/.test(name))
  return config.num_quantiles === undefined && config.num_objectives !== undefined && !norms ? 'armorm' : 'qrm'
}

/** The sizes of the heads that config.json announces. */
export function readSizes(
  layout: Layout,
  json: Readonly<Record<string, unknown>>,
  where: string,
): HeadSizes & { readonly temperature: number } {
  const count = (key: string, least: number, limit: number, fallback?: number): number => {
    const value = json[key] ?? fallback
    if (value === undefined) throw new Error(`${where}: ${key} is missing; scoring needs a QRM model directory`)
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > limit) {
      throw new Error(`${where}: ${key} must be a whole number from ${least} to ${limit}, got ${show(value)}`)
    }
    return value as number
  }
  if (layout === 'classifier') {
    count('num_labels', 1, 1, 1)
    return { objectives: 1, quantiles: 1, gateWidth: 1, gateDepth: 0, temperature: 1 }
  }
  const temperature = json.gating_temperature ?? 10
  if (typeof temperature !== 'number' || !(temperature > 0 && temperature < Infinity)) {
    throw new Error(`${where}: gating_temperature must be a number above 0, got ${show(temperature)}`)
  }
  return {
    objectives: count('num_objectives', 1, HEAD_LIMIT),
    quantiles: layout === 'armorm' ? 1 : count('num_quantiles', 1, HEAD_LIMIT),
    temperature,
    gateWidth: count('gating_hidden_dim', 1, GATE_WIDTH_LIMIT, 1024),
    gateDepth: count('gating_n_hidden', 0, GATE_DEPTH_LIMIT, 3),
  }
}

/** Of torch.nn.BatchNorm1d; no checkpoint stores another. */
export const BATCH_NORM_EPS = 1e-5

/** Names of the gate's maps and of the norms after them: one for each hidden layer, and one for the last map. */
// As nn.Sequential numbers them in a QRM: linear, ReLU, norm; ArmoRM keeps a list of the linear maps alone.
export function layerNames(layout: Layout, depth: number): { readonly linear: string; readonly norm: string }[] {
  const step = layout === 'armorm' ? 1 : 3
  return Array.from({ length: depth + 1 }, (_, i) => ({
    linear: `gating.layers.${step * i}`,
    norm: `gating.layers.${step * i + 2}`,
  }))
}

/** Every head tensor that holds floats, by name, in the order in which they are written. */
export function headShapes(
  layout: Layout,
  { objectives, quantiles, gateWidth: width, gateDepth: depth }: HeadSizes,
  hidden: number,
): Map<string, number[]> {
  if (layout === 'classifier') return new Map([['score.weight', [1, hidden]]])
  const outputs = objectives * quantiles
  const shapes = new Map<string, number[]>()
  shapes.set('regression_layer.weight', [outputs, hidden])
  shapes.set('regression_layer.bias', [outputs])
  shapes.set('reward_transform_matrix', [objectives, objectives])
  shapes.set('gating.logit_scale', [1])
  const names = layerNames(layout, depth)
  for (let i = 0; i < depth; i++) {
    shapes.set(`${names[i].linear}.weight`, [width, i === 0 ? hidden : width])
    if (layout === 'armorm') shapes.set(`${names[i].linear}.bias`, [width])
    else
      for (const part of ['weight', 'bias', 'running_mean', 'running_var'])
        shapes.set(`${names[i].norm}.${part}`, [width])
  }
  shapes.set(`${names[depth].linear}.weight`, [objectives, depth === 0 ? hidden : width])
  shapes.set(`${names[depth].linear}.bias`, [objectives])
  return shapes
}

const OPTIONAL = ['regression_layer.bias', 'reward_transform_matrix']

/** Reads the heads; without `needsGate` a gate may be absent, but not a part of one. */
export async function readHeads(
  layout: Layout,
  tensors: ReadonlyMap<string, TensorInfo>,
  sizes: HeadSizes & { readonly temperature: number },
  hidden: number,
  { name, needsGate }: { readonly name: string; readonly needsGate: boolean },
): Promise<Pick<Checkpoint, 'regression' | 'transform' | 'gate'>> {
  const shapes = headShapes(layout, sizes, hidden)
  const gated = layout !== 'classifier' && (needsGate || [...tensors.keys()].some((key) => key.startsWith('gating.')))
  if (!gated) for (const key of shapes.keys()) if (key.startsWith('gating.')) shapes.delete(key)
  checkNames(layout, tensors, shapes, sizes.gateDepth, name)
  const read = async (key: string) => (shapes.has(key) ? readHead(tensors.get(key), shapes.get(key)!) : null)
  const required = async (key: string) => (await read(key))!
  if (layout === 'classifier') {
    return { regression: { weight: await required('score.weight'), bias: null }, transform: null, gate: null }
  }
  const heads = {
    regression: { weight: await required('regression_layer.weight'), bias: await read('regression_layer.bias') },
    transform: await read('reward_transform_matrix'),
  }
  if (!gated) return { ...heads, gate: null }
  const names = layerNames(layout, sizes.gateDepth)
  const layers: GateLayer[] = []
  for (const { linear, norm } of names.slice(0, -1)) {
    const variance = tensors.get(`${norm}.running_var`)
    layers.push({
      weight: await required(`${linear}.weight`),
      bias: await read(`${linear}.bias`),
      norm:
        layout === 'armorm'
          ? null
          : {
              weight: await required(`${norm}.weight`),
              bias: await required(`${norm}.bias`),
              mean: await required(`${norm}.running_mean`),
              variance: checkVariance(await required(`${norm}.running_var`), variance!),
            },
    })
  }
  const { linear } = names[sizes.gateDepth]
  return {
    ...heads,
    gate: {
      temperature: sizes.temperature,
      logitScale: (await required('gating.logit_scale'))[0],
      hidden: layers,
      weight: await required(`${linear}.weight`),
      bias: await required(`${linear}.bias`),
    },
  }
}

function checkNames(
  layout: Layout,
  tensors: ReadonlyMap<string, TensorInfo>,
  shapes: ReadonlyMap<string, number[]>,
  depth: number,
  name: string,
) {
  const missing = [...shapes.keys()].filter((key) => !tensors.has(key) && !OPTIONAL.includes(key))
  if (missing.length > 0)
    throw new Error(`${name}: missing head ${tensorList(missing)}; ${TITLES[layout]} has all of them`)
  const counters = layerNames(layout, depth).map(({ norm }) => `${norm}.num_batches_tracked`)
  const passedOver = new Set(['lm_head.weight', ...(layout === 'qrm' ? counters : [])])
  const unexpected = [...tensors.keys()].filter(
    (key) => !key.startsWith('model.') && !shapes.has(key) && !passedOver.has(key),
  )
  if (unexpected.length > 0)
    throw new Error(`${name}: unexpected ${tensorList(unexpected)}; no part of ${TITLES[layout]}`)
}

function tensorList(names: string[]): string {
  const shown = names.slice(0, 4).map((name) => show(name))
  const more = names.length > shown.length ? ` and ${names.length - shown.length} more` : ''
  return `${names.length === 1 ? 'tensor' : 'tensors'} ${shown.join(', ')}${more}`
}

async function readHead(info: TensorInfo | undefined, shape: readonly number[]): Promise<Float32Array | null> {
  if (info === undefined) return null
  const where = `${info.source.name}: tensor ${show(info.name)}`
  if (info.shape.length !== shape.length || info.shape.some((length, i) => length !== shape[i])) {
    throw new Error(`${where} must be [${shape.join(', ')}], got [${info.shape.join(', ')}]`)
  }
  const values = await readTensorF32(info)
  const bad = values.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) throw new Error(`${where} must be finite, got ${values[bad]} at element ${bad}`)
  return values
}

function checkVariance(values: Float32Array, info: TensorInfo): Float32Array {
  const bad = values.findIndex((value) => value < 0)
  if (bad < 0) return values
  throw new Error(
    `${info.source.name}: tensor ${show(info.name)} must not be negative, got ${values[bad]} at element ${bad}`,
  )
}
