// Which tokens end what a model says.
import { parseJsonObject, show } from '../files/json.ts'
import { type ModelFiles, readText } from '../files/source.ts'

/**
 * The stop tokens of a model directory: `eos_token_id` of generation_config.json, a number or a list, where it names any, else those of
 * config.json (`own`). Empty where neither names one: then a continuation ends by its length or by other stops.
 */
export async function readStopTokens(files: ModelFiles, own: readonly number[]): Promise<number[]> {
  const text = await readText(files, 'generation_config.json')
  if (text === null) return [...new Set(own)]
  const where = `${files.name}/generation_config.json`
  const { eos_token_id: value } = parseJsonObject(text, where)
  const ids = value == null ? [] : Array.isArray(value) ? value : [value]
  for (const id of ids) {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw new Error(`${where}: eos_token_id must be a token id or a list of them, got ${show(value)}`)
    }
  }
  return [...new Set(ids.length > 0 ? (ids as number[]) : own)]
}
