// Rows divided into parts by a hash of what they are about, so that a row is always in the same part, whatever is beside it.
import { drawText } from '../data/draw.ts'
import { isObject, parseJson, show } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'
import { readText } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { readRow } from './row_forms.ts'

export interface Part {
  readonly name: string
  /** In (0, 1]; those of all parts add up to 1. */
  readonly share: number
}

/** What rows of one part have in common: the response with its prompt, or the prompt alone. Pairs are always by their prompts. */
export type SplitBy = 'item' | 'prompt'

/** Parses `fit:0.6,calibrate:0.2,test:0.2`. Throws on names that are none of a file, are there twice, and shares that do not add up to 1. */
export function parseParts(text: string): Part[] {
  const parts = text.split(',').map((piece) => {
    const [, name, digits] = /^\s*([\w-]{1,64}):(\d{0,8}\.?\d{1,8})\s*$/.exec(piece) ?? []
    const share = Number(digits)
    if (name === undefined || !(share > 0 && share <= 1))
      throw new Error(`must be NAME:SHARE with commas, as fit:0.6,calibrate:0.2,test:0.2, got ${show(piece)}`)
    return { name, share }
  })
  const twice = parts.find(({ name }, i) => parts.findIndex((part) => part.name === name) !== i)
  if (twice !== undefined) throw new Error(`the part ${show(twice.name)} is there twice`)
  const sum = parts.reduce((all, { share }) => all + share, 0)
  if (Math.abs(sum - 1) > 1e-9) throw new Error(`the shares must add up to 1, got ${Number(sum.toPrecision(12))}`)
  return parts
}

/** What decides in which part a row is: a text. Throws on rows of no form. */
export function splitKey(row: Readonly<Record<string, unknown>>, by: SplitBy = 'item'): string {
  const { sides, isPair } = readRow(row)
  const turns = turnsOf(sides[0])
  return JSON.stringify(isPair || by === 'prompt' ? turns.slice(0, -1) : turns)
}

/** The turns of a side, the last one the response; tokens are one turn, as nobody knows where the response begins. */
function turnsOf(side: unknown): unknown[] {
  const { prompt, response, messages, input_ids } = side as Record<string, unknown>
  if (Array.isArray(messages)) return messages.map(({ role, content }) => [role, content])
  if (input_ids !== undefined) return [[...(input_ids as Iterable<unknown>)], '']
  return [
    ['user', prompt],
    ['assistant', response],
  ]
}

const RANGE = 2 ** 53

/** The number of the part that a key is in. */
export function partOf(key: string, parts: readonly Part[], seed: number): number {
  const place = drawText(key, seed).draw / RANGE
  let end = 0
  const found = parts.findIndex(({ share }) => {
    end += share
    return place < end
  })
  return found < 0 ? parts.length - 1 : found
}

/** Divides records; each part keeps their order. Throws on a row of no form, naming it. */
export function splitRecords(
  records: readonly FileRecord[],
  parts: readonly Part[],
  { seed = 0, by = 'item' }: { readonly seed?: number; readonly by?: SplitBy } = {},
): FileRecord[][] {
  const found = parts.map((): FileRecord[] => [])
  for (const record of records) {
    try {
      found[partOf(splitKey(record.value, by), parts, seed)].push(record)
    } catch (error) {
      throw new Error(`${record.where}: ${(error as Error).message}`)
    }
  }
  return found
}

/** The file that says that a folder holds parts, and which. */
export const SPLIT_FILE = 'split.json'

/** Throws unless a folder is missing, empty, or holds nothing but parts that were written before. */
export async function checkSplitFolder(store: Store): Promise<void> {
  const names = await store.list()
  if (names.length === 0) return
  const text = names.includes(SPLIT_FILE) ? await readText(store, SPLIT_FILE) : null
  const before: unknown = text === null ? null : parseJson(text, `${store.name}/${SPLIT_FILE}`)
  const ours = isObject(before) && before.pinball === 'split' && Array.isArray(before.files) ? before.files : []
  const strange = names.find((name) => name !== SPLIT_FILE && !ours.includes(name))
  if (strange === undefined && ours.length > 0) return
  const found = strange ?? SPLIT_FILE
  throw new Error(
    `${store.name}: must be missing, empty or hold parts of "pinball split", it has ${show(found)}; choose another --out`,
  )
}
