// The adapter_config.json of PEFT: what of it is understood, what is refused, and how PEFT writes it.
//
// PEFT drops keys that it does not know, with a warning. A key may change the mathematics, so here one that is not known is refused,
// unless its value says that it does nothing. Source: LoraConfig of PEFT 0.21.
import { isObject, parseJsonObject, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { PROJECTIONS } from './adapter_plan.ts'

export const ADAPTER_CONFIG_FILE = 'adapter_config.json'

/** Classes of models that an adapter may be of; null where it does not say. */
export type AdapterTask = 'CAUSAL_LM' | 'SEQ_CLS' | 'FEATURE_EXTRACTION' | null

export interface AdapterConfig {
  /** What errors call the file. */
  readonly name: string
  readonly task: AdapterTask
  /** r, where no pattern says otherwise; 1 or more. */
  readonly rank: number
  /** lora_alpha, where no pattern says otherwise; any finite number. */
  readonly alpha: number
  /** In training, share of the inputs of A that are left out; from 0 to below 1. */
  readonly dropout: number
  /** The scaling is alpha / sqrt(r) instead of alpha / r. */
  readonly rankStabilised: boolean
  /** Names of modules, ends of their paths or whole paths; a text is a regular expression for whole paths, or "all-linear". */
  readonly targets: readonly string[] | string
  readonly excluded: readonly string[] | string
  /** Numbers of layers; null for all of them. */
  readonly layers: readonly number[] | null
  readonly layersPattern: readonly string[]
  /** Regular expressions for ends of paths, in order; the first that matches decides. */
  readonly rankPattern: readonly (readonly [string, number])[]
  readonly alphaPattern: readonly (readonly [string, number])[]
  /** Ends of paths of modules that were trained whole. */
  readonly saved: readonly string[]
  /** The object as it stands in the file. */
  readonly json: Readonly<Record<string, unknown>>
}

/** What a LoraConfig holds that says nothing; the keys and values that PEFT 0.21.2 writes. */
const DEFAULTS: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: null,
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 8,
  lora_bias: false,
  lora_dropout: 0,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: null,
  monteclora_config: null,
  peft_type: 'LORA',
  peft_version: '0.21.2',
  qalora_group_size: 16,
  r: 8,
  rank_pattern: {},
  revision: null,
  target_modules: null,
  target_parameters: null,
  task_type: null,
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
}

/**
 * Keys whose value changes nothing in what an adapter computes: notes of whoever trained it; settings of a way to begin that the
 * trained tensors have replaced; settings of a method that another key, which is refused, switches on; and what linear maps of
 * Llama do not have (biases, transposed weights; biases that were trained are tensors, and those are refused).
 */
const WITHOUT_EFFECT = [
  'auto_mapping',
  'base_model_name_or_path',
  'corda_config',
  'ensure_weight_tying',
  'eva_config',
  'fan_in_fan_out',
  'inference_mode',
  'loftq_config',
  'lora_ga_config',
  'megatron_core',
  'peft_version',
  'qalora_group_size',
  'revision',
  'runtime_config',
]

/** Keys that are read. */
const READ = [
  'alpha_pattern',
  'bias',
  'exclude_modules',
  'init_lora_weights',
  'layers_pattern',
  'layers_to_transform',
  'lora_alpha',
  'lora_dropout',
  'modules_to_save',
  'peft_type',
  'r',
  'rank_pattern',
  'target_modules',
  'task_type',
  'use_rslora',
]

/** What refused keys are called. */
const METHODS: Readonly<Record<string, string>> = {
  alora_invocation_tokens: 'activated LoRA (aLoRA)',
  arrow_config: 'Arrow',
  kasa_config: 'KaSA',
  layer_replication: 'replicated layers',
  lora_bias: 'biases of B',
  megatron_config: 'Megatron',
  monteclora_config: 'MonteCLoRA',
  target_parameters: 'LoRA on parameters that are no linear maps',
  trainable_token_indices: 'trained tokens of the embedding',
  use_bdlora: 'block-diagonal LoRA',
  use_dora: 'DoRA',
  use_qalora: 'QALoRA',
  velora_config: 'VeLoRA',
}

/** Ways to begin after which the base is the one that was given: only A and B are drawn, and training has replaced them. */
const INITS = [true, false, 'gaussian', 'orthogonal', 'eva']
const RANK_LIMIT = 65536

/** Reads adapter_config.json of an adapter's folder. Throws where it is missing and as `parseAdapterConfig` does. */
export async function readAdapterConfig(files: ModelFiles): Promise<AdapterConfig> {
  const name = `${files.name}/${ADAPTER_CONFIG_FILE}`
  const text = await readText(files, ADAPTER_CONFIG_FILE)
  if (text === null) throw new Error(`${name}: is missing; give the folder of an adapter as PEFT writes it`)
  return parseAdapterConfig(parseJsonObject(text, name), name)
}

/**
 * Checks the object of an adapter_config.json. Throws, naming the key, on other methods than LoRA, on whatever changes the mathematics
 * and is not supported, on unknown keys with a value that may do so, and on values of another type.
 */
export function parseAdapterConfig(json: Readonly<Record<string, unknown>>, name: string): AdapterConfig {
  if (json.peft_type !== 'LORA') throw new Error(`${name}: peft_type must be "LORA", got ${show(json.peft_type)}`)
  for (const [key, value] of Object.entries(json)) {
    if (READ.includes(key) || WITHOUT_EFFECT.includes(key) || isNeutral(value)) continue
    const method = METHODS[key]
    if (method !== undefined)
      throw new Error(`${name}: ${key} is set (${method}), got ${show(value)}; this is not supported`)
    throw new Error(`${name}: unknown key ${show(key)} with the value ${show(value)}; it may change what is computed`)
  }
  checkInit(json.init_lora_weights ?? true, name)
  const bias = json.bias ?? 'none'
  if (bias !== 'none' && bias !== 'all' && bias !== 'lora_only') {
    throw new Error(`${name}: bias must be "none", "all" or "lora_only", got ${show(bias)}`)
  }
  const targets = namesOf(json.target_modules, 'target_modules', name) ?? ['q_proj', 'v_proj']
  const layers = layersOf(json.layers_to_transform, name)
  const pattern = namesOf(json.layers_pattern, 'layers_pattern', name) ?? []
  const layersPattern = typeof pattern === 'string' ? [pattern].filter((one) => one !== '') : pattern
  if (typeof targets === 'string' && (layers !== null || layersPattern.length > 0)) {
    throw new Error(
      `${name}: layers_to_transform and layers_pattern need target_modules as a list, got ${show(targets)}`,
    )
  }
  if (layersPattern.length > 0 && layers === null) {
    throw new Error(`${name}: layers_pattern needs layers_to_transform, which is null`)
  }
  const saved = namesOf(json.modules_to_save, 'modules_to_save', name) ?? []
  if (typeof saved === 'string') throw new Error(`${name}: modules_to_save must be a list of names, got ${show(saved)}`)
  const rank = json.r ?? DEFAULTS.r
  const alpha = json.lora_alpha ?? DEFAULTS.lora_alpha
  const dropout = json.lora_dropout ?? 0
  if (typeof dropout !== 'number' || !(dropout >= 0 && dropout < 1)) {
    throw new Error(`${name}: lora_dropout must be a number from 0 to below 1, got ${show(dropout)}`)
  }
  const rankStabilised = json.use_rslora ?? false
  if (typeof rankStabilised !== 'boolean') {
    throw new Error(`${name}: use_rslora must be true or false, got ${show(rankStabilised)}`)
  }
  return {
    name,
    task: taskOf(json.task_type ?? null, name),
    rank: checkRank(rank, 'r', name),
    alpha: checkAlpha(alpha, 'lora_alpha', name),
    dropout,
    rankStabilised,
    targets,
    excluded: namesOf(json.exclude_modules, 'exclude_modules', name) || [],
    layers,
    layersPattern,
    rankPattern: patternOf(json.rank_pattern, 'rank_pattern', name, checkRank),
    alphaPattern: patternOf(json.alpha_pattern, 'alpha_pattern', name, checkAlpha),
    saved,
    json,
  }
}

/** Whether a value says that its key does nothing. */
function isNeutral(value: unknown): boolean {
  if (value === null || value === false || value === 0 || value === '' || value === 'none') return true
  return typeof value === 'object' && Object.values(value as object).every(isNeutral)
}

function checkInit(init: unknown, name: string): void {
  if (INITS.includes(init as boolean)) return
  throw new Error(
    `${name}: init_lora_weights must be ${INITS.map(show).join(', ')}, got ${show(init)}; other ways to begin change the base's ` +
      'weights (save with path_initial_model_for_weight_conversion to make a plain LoRA of such an adapter)',
  )
}

function taskOf(task: unknown, name: string): AdapterTask {
  if (task === null || task === 'CAUSAL_LM' || task === 'SEQ_CLS' || task === 'FEATURE_EXTRACTION') return task
  throw new Error(`${name}: task_type must be "CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION" or null, got ${show(task)}`)
}

function namesOf(value: unknown, key: string, name: string): readonly string[] | string | null {
  if (value === null || value === undefined) return null
  if (typeof value === 'string' || (Array.isArray(value) && value.every((one) => typeof one === 'string'))) return value
  throw new Error(`${name}: ${key} must be a text, a list of texts or null, got ${show(value)}`)
}

function layersOf(value: unknown, name: string): readonly number[] | null {
  if (value === null || value === undefined) return null
  const list: unknown[] = Array.isArray(value) ? value : [value]
  for (const layer of list) {
    if (!Number.isSafeInteger(layer) || (layer as number) < 0) {
      throw new Error(`${name}: layers_to_transform must be numbers of layers from 0, got ${show(layer)}`)
    }
  }
  return list.length === 0 ? null : (list as number[])
}

function patternOf(
  value: unknown,
  key: string,
  name: string,
  check: (value: unknown, key: string, name: string) => number,
): (readonly [string, number])[] {
  if (value === null || value === undefined) return []
  if (!isObject(value)) throw new Error(`${name}: ${key} must be an object, got ${show(value)}`)
  return Object.entries(value).map(([pattern, one]) => [pattern, check(one, `${key} ${show(pattern)}`, name)])
}

function checkRank(value: unknown, key: string, name: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= RANK_LIMIT) return value as number
  throw new Error(`${name}: ${key} must be a whole number from 1 to ${RANK_LIMIT}, got ${show(value)}`)
}

function checkAlpha(value: unknown, key: string, name: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw new Error(`${name}: ${key} must be a number, got ${show(value)}`)
}

export interface NewAdapter {
  readonly task: AdapterTask
  /** 1 or more. */
  readonly rank: number
  readonly alpha: number
  /** As `targets` of AdapterConfig. */
  readonly targets: readonly string[] | string
  /** From 0 to below 1; default 0. */
  readonly dropout?: number
  /** Default false. */
  readonly rankStabilised?: boolean
  /** What PEFT's AutoPeft classes load the base from; default null. */
  readonly base?: string | null
}

/** The configuration of an adapter that begins; one of task SEQ_CLS trains a `score` head. Throws as `parseAdapterConfig` does. */
export function newAdapterConfig(options: NewAdapter, name = ADAPTER_CONFIG_FILE): AdapterConfig {
  const { task, rank, alpha, targets, dropout = 0, rankStabilised = false, base = null } = options
  const changes = {
    base_model_name_or_path: base,
    lora_alpha: alpha,
    lora_dropout: dropout,
    modules_to_save: task === 'SEQ_CLS' ? ['classifier', 'score'] : null,
    r: rank,
    // PEFT too writes the names that "all-linear" stands for.
    target_modules: targets === 'all-linear' ? [...PROJECTIONS] : targets,
    task_type: task,
    use_rslora: rankStabilised,
  }
  return parseAdapterConfig({ ...DEFAULTS, ...changes }, name)
}

/** The text of adapter_config.json as PEFT writes it: all keys in order, two spaces, floats and escapes of Python. */
export function adapterConfigText({ json }: AdapterConfig): string {
  const { runtime_config: _, ...kept } = json
  return pythonJson({ ...DEFAULTS, ...kept, inference_mode: true }, '', null)
}

/** Keys of numbers that are floats in Python even where they are whole. */
const FLOATS = ['lora_dropout']

function pythonJson(value: unknown, indent: string, key: string | null): string {
  if (typeof value === 'string') return pythonText(value)
  if (typeof value === 'number') return pythonNumber(value, key !== null && FLOATS.includes(key))
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const inner = `${indent}  `
  const items = Array.isArray(value)
    ? value.map((one) => pythonJson(one, inner, null))
    : Object.entries(value)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, one]) => `${pythonText(name)}: ${pythonJson(one, inner, name)}`)
  const [open, close] = Array.isArray(value) ? '[]' : '{}'
  return items.length === 0
    ? open + close
    : `${open}\n${items.map((item) => inner + item).join(',\n')}\n${indent}${close}`
}

function pythonText(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

/** A number as Python's repr has it: the same digits, the exponent from 1e16 up and below 1e-4. */
function pythonNumber(value: number, float: boolean): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e16) return float ? `${value}.0` : String(value)
  const [digits, exponent] = value.toExponential().split('e')
  const power = Number(exponent)
  if (power >= -4 && power < 16) return String(value)
  return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
}
