// Long-form ratings: a row for each rating of an item by a rater, brought together into one row an item with lists of ratings.
//
//   {"item", "rater", "rating"}               one attribute, "rating", or that of "attribute" in the row
//   {"item", "rater", ATTRIBUTE, ATTRIBUTE}   several, each a number
//
// "rater" may be absent. What is rated is in the rows themselves (a prompt and a response, messages), or in rows of their own, in this
// file or another, whose "id" is the item. Lists have the ratings of one rater at the same place, null where there is none.
import { show } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'

type Row = Readonly<Record<string, unknown>>

/** Whether a row is one rating in long form. */
export function isLongRating(row: Row): boolean {
  return row.item !== undefined && row.item !== null && ('rating' in row || 'rater' in row)
}

interface Item {
  readonly where: string
  readonly name: string
  /** By rater: the rating of each attribute. Ratings without a rater are of one each. */
  readonly raters: Map<string, Record<string, unknown>>
  text: Row | null
}

const OWN = ['item', 'rater', 'rating', 'attribute']

/**
 * The rows of several inputs, one after the other. Where the first row of one of them is a rating in long form, all are read before the
 * first is given: rows of items come in the order of their first ratings, and rows that nobody rated are left out. Throws on ratings
 * that are no numbers, items without a text, and texts with the same id.
 */
export async function* joinRatings(inputs: readonly AsyncIterable<FileRecord>[]): AsyncGenerator<FileRecord> {
  const begun: { first: IteratorResult<FileRecord>; rest: AsyncIterator<FileRecord> }[] = []
  try {
    for (const input of inputs) {
      const rest = input[Symbol.asyncIterator]()
      begun.push({ rest, first: { done: true, value: undefined } })
      begun[begun.length - 1].first = await rest.next()
    }
    const all = flat(begun)
    if (!begun.some(({ first }) => !first.done && isLongRating(first.value.value))) yield* all
    else yield* gather(all)
  } finally {
    for (const { rest } of begun) await rest.return?.()
  }
}

async function* flat(
  begun: readonly { first: IteratorResult<FileRecord>; rest: AsyncIterator<FileRecord> }[],
): AsyncGenerator<FileRecord> {
  for (const { first, rest } of begun) {
    for (let next = first; !next.done; next = await rest.next()) yield next.value
  }
}

async function* gather(records: AsyncIterable<FileRecord>): AsyncGenerator<FileRecord> {
  const items = new Map<string, Item>()
  const texts = new Map<string, Row>()
  for await (const { where, value } of records) {
    if (!isLongRating(value)) {
      const name = nameOf(value.id, where, 'id')
      if (texts.has(name))
        throw new Error(`${where}: the id ${show(value.id)} is there twice, and ratings are of one item`)
      texts.set(name, value)
      continue
    }
    const name = nameOf(value.item, where, 'item')
    const item = items.get(name) ?? { where, name, raters: new Map(), text: null }
    items.set(name, item)
    add(item, value, where)
    const rest = Object.entries(value).filter(([field]) => !OWN.includes(field) && !isRating(value[field]))
    if (item.text === null && rest.length > 0) item.text = Object.fromEntries(rest)
  }
  for (const { where, name, raters, text } of items.values()) {
    const scored = texts.get(name) ?? text
    if (scored === null) {
      throw new Error(`${where}: there is no text of item ${show(name)}; give it in its rows, or rows with this "id"`)
    }
    const attributes = [...new Set([...raters.values()].flatMap(Object.keys))]
    const lists = attributes.map((attribute) => [
      attribute,
      [...raters.values()].map((given) => (attribute in given ? given[attribute] : null)),
    ])
    yield { where, value: { ...scored, id: name, ...Object.fromEntries(lists) } }
  }
}

const isRating = (value: unknown): boolean => typeof value === 'number' || typeof value === 'boolean' || value === null

function nameOf(value: unknown, where: string, field: string): string {
  if ((typeof value === 'string' && value !== '') || Number.isSafeInteger(value)) return String(value)
  throw new Error(`${where}: ${field} must be a text that is not empty, or a whole number, got ${show(value)}`)
}

function add({ raters }: Item, row: Row, where: string): void {
  const found: Record<string, unknown> = {}
  if ('rating' in row) {
    const { attribute = 'rating', rating } = row
    if (typeof attribute !== 'string' || attribute === '')
      throw new Error(`${where}: attribute must be a name, got ${show(attribute)}`)
    if (!isRating(rating)) throw new Error(`${where}: rating must be a number or null, got ${show(rating)}`)
    found[attribute] = rating
  } else {
    for (const [field, value] of Object.entries(row)) if (!OWN.includes(field) && isRating(value)) found[field] = value
  }
  const { rater } = row
  const own = rater === undefined || rater === null ? null : String(rater)
  // Who rates an attribute twice gives two ratings.
  let key = own ?? `\0${raters.size}`
  for (let n = 2; Object.keys(found).some((name) => name in (raters.get(key) ?? {})); n++) key = `${own}\0${n}`
  raters.set(key, { ...raters.get(key), ...found })
}
