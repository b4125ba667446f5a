// Heads of one directory for the backbone of another: configuration and settings of both.
import { parseJsonObject } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'
import { parseLlamaConfig } from '../llama/config.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import { type FixedWeights, MANIFEST_FILE, orderWeights } from './manifest.ts'

const CONFIG = 'config.json'

/**
 * Heads for a backbone: its configuration with theirs, and what only the backbone's pinball.json says (BOS policy, gate pattern, lambda).
 * `weights` take the place of a gate, or of theirs. Throws on heads for states of another width, and on weights of other attributes.
 */
export async function headsFor(
  backbone: ModelFiles,
  heads: ModelFiles,
  { weights }: { readonly weights?: FixedWeights } = {},
): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(heads)
  const config = await readJson(backbone, CONFIG)
  if (config === null) throw new Error(`${backbone.name}/${CONFIG}: is missing; a model directory needs it`)
  const { hidden } = parseLlamaConfig(config, `${backbone.name}/${CONFIG}`)
  if (hidden !== checkpoint.config.hidden_size) {
    throw new Error(
      `${heads.name}: heads must be for states of ${hidden} columns, as ${backbone.name} gives them, got ${checkpoint.config.hidden_size}`,
    )
  }
  if (weights !== undefined) orderWeights(weights, checkpoint.manifest.attributes, `${heads.name}: weights`)
  const own = (await readJson(backbone, MANIFEST_FILE)) ?? {}
  const said = (await readJson(heads, MANIFEST_FILE)) ?? {}
  const manifest = { ...checkpoint.manifest, ...onlyOf(own, said), ...(weights !== undefined && { weights }) }
  const headConfig = Object.fromEntries(Object.entries(checkpoint.config).filter(([key]) => !(key in config)))
  return { ...checkpoint, config: { ...config, ...headConfig }, manifest }
}

async function readJson(files: ModelFiles, file: string): Promise<Record<string, unknown> | null> {
  const text = await readText(files, file)
  return text === null ? null : parseJsonObject(text, `${files.name}/${file}`)
}

/** Settings that the backbone's manifest has and the heads' has not. */
function onlyOf(own: Record<string, unknown>, said: Record<string, unknown>): Record<string, unknown> {
  const fields = { bos: 'bos', gate_pattern: 'gatePattern', lambda: 'lambda' }
  const taken = Object.entries(fields).filter(([key]) => !(key in said) && key in own)
  return Object.fromEntries(taken.map(([key, field]) => [field, own[key]]))
}
