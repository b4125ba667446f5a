// Which projections of which layers an adapter changes, with what rank and scaling: the rules of PEFT on the modules of a Llama.
//
// Source: check_target_module_exists, get_pattern_key and _set_trainable of PEFT 0.21.
import { show } from '../files/json.ts'
import type { AdapterConfig } from './adapter_config.ts'
import type { LlamaConfig } from './config.ts'
import { type Budget, parsePythonRegex } from './python_regex.ts'
import { moduleOf, type ProjectionName } from './weights.ts'

/** The linear maps of a layer, in the order of the forward pass. */
export const PROJECTIONS = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
] as const satisfies ProjectionName[]

/** Rank r and scaling of the product B A. */
export interface LowRank {
  readonly rank: number
  readonly scaling: number
}

/** What becomes of each projection of a layer; absent: nothing. */
export type LayerPlan = Readonly<Partial<Record<ProjectionName, LowRank>>>

export interface AdapterPlan {
  /** [L] */
  readonly layers: readonly LayerPlan[]
  /** Whether the adapter has a `score` head of its own: always, never, or where its file holds one. */
  readonly score: 'required' | 'possible' | 'none'
}

/** What the paths of modules begin with: those of a LlamaModel alone have no "model." in front. */
export type PathPrefix = 'model.' | ''

// Enough for every expression that means something on the largest models, and a second or two for one that is made to take long.
const STEPS = 3e7

/**
 * Applies the rules of the configuration to a Llama of these sizes. Throws, naming the key, where nothing is targeted, where a module
 * is targeted that is none of the seven projections, and where other modules than a `score` head were trained whole.
 */
export function planAdapter(
  config: AdapterConfig,
  { layers: L }: LlamaConfig,
  prefix: PathPrefix = 'model.',
): AdapterPlan {
  const budget: Budget = { left: STEPS }
  const targeted = targetRule(config, budget)
  const rankOf = patternRule(config.rankPattern, `${config.name}: rank_pattern`, config.rank, budget)
  const alphaOf = patternRule(config.alphaPattern, `${config.name}: alpha_pattern`, config.alpha, budget)
  checkOthers(config, L, prefix, targeted)
  let found = 0
  const layers = Array.from({ length: L }, (_, layer) => {
    const plan: Partial<Record<ProjectionName, LowRank>> = {}
    for (const projection of PROJECTIONS) {
      const path = `${prefix}layers.${layer}.${moduleOf(projection)}`
      if (!targeted(path, layer)) continue
      const rank = rankOf(path)
      plan[projection] = { rank, scaling: alphaOf(path) / (config.rankStabilised ? Math.sqrt(rank) : rank) }
      found++
    }
    return plan
  })
  if (found === 0) {
    throw new Error(
      `${config.name}: target_modules ${show(config.targets)} names no projection of a Llama of ${L} layers; it has ${PROJECTIONS.join(', ')}`,
    )
  }
  const score =
    config.task === 'SEQ_CLS' ? 'required' : config.saved.some((end) => 'score'.endsWith(end)) ? 'possible' : 'none'
  return { layers, score }
}

type TargetRule = (path: string, layer: number | null) => boolean

const namedBy = (path: string, names: readonly string[]): boolean =>
  names.some((name) => path === name || path.endsWith(`.${name}`))

/** Whether a module is adapted; `layer` is the number of the layer that it is in. */
function targetRule(config: AdapterConfig, budget: Budget): TargetRule {
  const { name, targets, excluded, layers } = config
  const excludes =
    typeof excluded === 'string' && excluded !== ''
      ? parsePythonRegex(excluded, `${name}: exclude_modules`, budget)
      : null
  const whole = savedNames(config).map((one) =>
    parsePythonRegex(`(^|.*\\.)${one}($|\\..*)`, `${name}: modules_to_save`, budget),
  )
  const matches = rawTargets(config, budget)
  const inLayers = layerRule(config, budget)
  return (path, layer) => {
    if (excludes ? excludes.matchesAll(path) : namedBy(path, excluded as readonly string[])) return false
    if (whole.some((one) => one.matchesStart(path))) return false
    if (!matches(path)) return false
    // The whole path of a module is taken whatever its layer.
    return layers === null || (typeof targets !== 'string' && targets.includes(path)) || inLayers(path, layer)
  }
}

/** Modules that were trained whole: PEFT adds the heads of a classifier. */
function savedNames({ saved, task }: AdapterConfig): readonly string[] {
  return task === 'SEQ_CLS' ? [...new Set([...saved, 'classifier', 'score'])] : saved
}

function rawTargets({ name, targets }: AdapterConfig, budget: Budget): (path: string) => boolean {
  if (typeof targets !== 'string') return (path) => namedBy(path, targets)
  if (targets.toLowerCase() === 'all-linear') return (path) => namedBy(path, PROJECTIONS)
  const regex = parsePythonRegex(targets, `${name}: target_modules`, budget)
  return (path) => regex.matchesAll(path)
}

function layerRule({ name, layers, layersPattern }: AdapterConfig, budget: Budget): TargetRule {
  const where = `${name}: layers_pattern`
  const patterns =
    layersPattern.length === 0
      ? ['.*?\\.[^.]*\\.(?P<idx>\\d+)\\.']
      : layersPattern.map((pattern) => `(?:^|.*?\\.)${pattern}\\.(?P<idx>\\d+)\\.`)
  const regexes = patterns.map((pattern) => parsePythonRegex(pattern, where, budget))
  // A path has one number, that of its layer; so whatever matches has found this one.
  return (path, layer) => layer !== null && layers!.includes(layer) && regexes.some((regex) => regex.matchesStart(path))
}

/** The value of the first pattern that matches the end of a path. */
function patternRule(
  patterns: readonly (readonly [string, number])[],
  where: string,
  usual: number,
  budget: Budget,
): (path: string) => number {
  const rules = patterns.map(([pattern, value]) => ({
    regex: parsePythonRegex(`(.*\\.)?(${pattern})$`, `${where} ${show(pattern)}`, budget),
    value,
  }))
  return (path) => rules.find(({ regex }) => regex.matchesStart(path))?.value ?? usual
}

/** Throws where a module is adapted or was trained whole that cannot be. */
function checkOthers(config: AdapterConfig, L: number, prefix: PathPrefix, targeted: TargetRule): void {
  const { name, task } = config
  const body = prefix === '' ? [] : ['model']
  const head = task === 'SEQ_CLS' ? ['score'] : task === 'CAUSAL_LM' && prefix !== '' ? ['lm_head'] : []
  const others = ['embed_tokens', 'layers', 'norm', 'rotary_emb'].map((path) => `${prefix}${path}`)
  const inLayer = ['', '.self_attn', '.mlp', '.mlp.act_fn', '.input_layernorm', '.post_attention_layernorm']
  for (const path of [...body, ...others, ...head]) check(path, null)
  for (let layer = 0; layer < L; layer++) {
    for (const part of inLayer) check(`${prefix}layers.${layer}${part}`, layer)
    for (const projection of PROJECTIONS) checkSaved(`${prefix}layers.${layer}.${moduleOf(projection)}`)
  }

  function check(path: string, layer: number | null): void {
    // "all-linear" is a list of linear maps without the output layer.
    const all = typeof config.targets === 'string' && config.targets.toLowerCase() === 'all-linear'
    if (!all && targeted(path, layer)) {
      throw new Error(
        `${name}: target_modules ${show(config.targets)} names ${path}; only ${PROJECTIONS.join(', ')} can be adapted`,
      )
    }
    checkSaved(path)
  }

  function checkSaved(path: string): void {
    const end = savedNames(config).find((one) => path.endsWith(one))
    if (end === undefined || path === 'score') return
    throw new Error(`${name}: modules_to_save ${show(end)} names ${path}; only a "score" head can be trained whole`)
  }
}
