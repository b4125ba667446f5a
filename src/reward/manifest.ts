// The manifest pinball.json of a model directory: what a checkpoint does not say about how to use it.
import { ATTRIBUTES } from '../data/attributes.ts'
import { isObject, parseJsonObject, printable, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import type { BosPolicy } from '../text/chat.ts'
import { checkLevels, type Mixture } from './distribution.ts'
import { checkLambda } from './risk.ts'

export interface Manifest {
  /** Names of the attributes [M], or null: see `attributeNames`. */
  readonly attributes: readonly string[] | null
  /** Quantile levels [K], or null: k / (K + 1). */
  readonly levels: readonly number[] | null
  readonly bos: BosPolicy
  /** Token ids; the gate reads the state at the first token of their last occurrence. */
  readonly gatePattern: readonly number[]
  readonly mixture: Mixture
  /** Of the utility -mean exp(-lambda q). */
  readonly lambda: number
  /** Fixed weights of the attributes in the place of the gate: by name (0 where absent), or `mean`; null: the gate. */
  readonly weights: FixedWeights | null
  /** Which values the attributes of a score show; null: debiased in a QRM, raw in ArmoRM, as these models do. */
  readonly rewards: Rewards | null
}

export type FixedWeights = Readonly<Record<string, number>> | 'mean'
/** With the transform matrix applied, or as the heads give them. */
export type Rewards = 'debiased' | 'raw'

export const MANIFEST_FILE = 'pinball.json'

/** `<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n` in the vocabulary of Llama 3. */
const LLAMA3_GATE_PATTERN = [128009, 128006, 78191, 128007, 271]

const KEYS = ['attributes', 'levels', 'bos', 'gate_pattern', 'mixture', 'lambda', 'weights', 'rewards']

/** Reads the manifest of a model directory; every key, and the file, may be absent. Throws on unknown keys and bad values. */
export async function readManifest(files: ModelFiles): Promise<Manifest> {
  const text = await readText(files, MANIFEST_FILE)
  const where = `${files.name}/${MANIFEST_FILE}`
  return parseManifest(text === null ? {} : parseJsonObject(text, where), where)
}

/** Checks the object of a pinball.json; `where` is what errors call it. */
export function parseManifest(json: Record<string, unknown>, where: string): Manifest {
  for (const key of Object.keys(json)) {
    if (!KEYS.includes(key)) throw new Error(`${where}: unknown key ${show(key)}; the keys are ${KEYS.join(', ')}`)
  }
  return {
    attributes: json.attributes === undefined ? null : readNames(json.attributes, `${where}: attributes`),
    levels: json.levels === undefined ? null : readLevels(json.levels, `${where}: levels`),
    bos: readChoice(json.bos, ['template', 'none', 'one'], `${where}: bos`),
    gatePattern:
      json.gate_pattern === undefined ? LLAMA3_GATE_PATTERN : readTokens(json.gate_pattern, `${where}: gate_pattern`),
    mixture: readChoice(json.mixture, ['sum', 'mean'], `${where}: mixture`),
    lambda: readLambda(json.lambda, `${where}: lambda`),
    weights: json.weights === undefined ? null : readWeights(json.weights, `${where}: weights`),
    rewards:
      json.rewards === undefined ? null : readChoice<Rewards>(json.rewards, ['debiased', 'raw'], `${where}: rewards`),
  }
}

/**
 * The inverse of `parseManifest`: an object for pinball.json. What is the default is left out, so that a manifest says what its model
 * needs and nothing more.
 */
export function manifestJson(manifest: Manifest): Record<string, unknown> {
  const { attributes, levels, bos, gatePattern, mixture, lambda, weights, rewards } = manifest
  const all = { attributes, levels, bos, gate_pattern: gatePattern, mixture, lambda, weights, rewards }
  const usual = parseManifest({}, '')
  const defaults: Record<string, unknown> = { ...usual, gate_pattern: usual.gatePattern }
  const differs = ([key, value]: [string, unknown]) => JSON.stringify(value) !== JSON.stringify(defaults[key])
  return Object.fromEntries(Object.entries(all).filter(differs))
}

/** The first value is the default. */
function readChoice<T extends string>(value: unknown, choices: readonly T[], where: string): T {
  if (value === undefined) return choices[0]
  const found = choices.find((choice) => choice === value)
  if (found === undefined) throw new Error(`${where} must be one of ${choices.join(', ')}, got ${show(value)}`)
  return found
}

function readList(value: unknown, where: string, what: string): unknown[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new Error(`${where} must be a list of ${what}, got ${show(value)}`)
  }
  return value
}

function readNames(value: unknown, where: string): string[] {
  const names = readList(value, where, 'names')
  const seen = new Set<string>()
  for (const name of names) {
    if (!isName(name)) throw new Error(`${where} must be names without control characters, got ${show(name)}`)
    if (seen.has(name)) throw new Error(`${where} must differ, got ${show(name)} twice`)
    seen.add(name)
  }
  return [...seen]
}

/** Whether a value can name an attribute: a text that is not empty and has no characters that would steer a terminal. */
export function isName(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && printable(value) === value
}

function readLevels(value: unknown, where: string): number[] {
  const levels = readList(value, where, 'numbers')
  for (const level of levels) {
    if (typeof level !== 'number') throw new Error(`${where} must be numbers, got ${show(level)}`)
  }
  checkLevels(levels as number[], where)
  return levels as number[]
}

function readTokens(value: unknown, where: string): number[] {
  const tokens = readList(value, where, 'token ids')
  for (const token of tokens) {
    if (!Number.isSafeInteger(token) || (token as number) < 0 || (token as number) >= 2 ** 32) {
      throw new Error(`${where} must be token ids, got ${show(token)}`)
    }
  }
  return tokens as number[]
}

function readLambda(value: unknown, where: string): number {
  if (value === undefined) return 1
  if (typeof value !== 'number') throw new Error(`${where} must be a number, got ${show(value)}`)
  checkLambda(value, where)
  return value
}

function readWeights(value: unknown, where: string): FixedWeights {
  if (value === 'mean') return value
  if (!isObject(value) || Object.keys(value).length === 0) {
    throw new Error(`${where} must be "mean" or an object of numbers by attribute, got ${show(value)}`)
  }
  for (const [name, weight] of Object.entries(value)) {
    if (typeof weight !== 'number' || !Number.isFinite(weight))
      throw new Error(`${where}: that of ${show(name)} must be a finite number, got ${show(weight)}`)
  }
  return value as Record<string, number>
}

/** Fixed weights [M] in the order of the attributes. Throws on a name that is none of them; `where` is what errors call them. */
export function orderWeights(weights: FixedWeights, attributes: readonly string[], where: string): Float32Array {
  if (weights === 'mean') return new Float32Array(attributes.length).fill(1 / attributes.length)
  const unknown = Object.keys(weights).find((name) => !attributes.includes(name))
  if (unknown !== undefined) {
    throw new Error(`${where}: there is no attribute ${show(unknown)}; there are ${attributes.map(show).join(', ')}`)
  }
  return Float32Array.from(attributes, (name) => (Object.hasOwn(weights, name) ? weights[name] : 0))
}

const HELPSTEER_COUNT = 5

/** Names for M attributes where the manifest gives none: those of the published models for 19 and 5, objective_0 ... else. */
export function attributeNames(count: number): string[] {
  if (count === ATTRIBUTES.length || count === HELPSTEER_COUNT) return ATTRIBUTES.slice(0, count)
  return Array.from({ length: count }, (_, i) => `objective_${i}`)
}
