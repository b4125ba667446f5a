// The cells of a Parquet column, put together from the levels and values of the columns below it.
import type { ColumnValues } from './parquet_pages.ts'
import type { Field } from './parquet_schema.ts'
import { Refused } from './parquet_values.ts'

/** A leaf and how far it has been read. */
interface Cursor extends ColumnValues {
  at: number
  next: number
}

/** Where nested values are read; `refused` is why the cell at hand cannot be given. */
interface Reading {
  readonly leaves: readonly Cursor[]
  readonly base: number
  refused: { readonly reason: string; readonly path: string } | null
}

type List = Extract<Field, { kind: 'list' | 'map' }>

/** A cell that JSON cannot hold: what it is, and where in the column. */
export class RefusedCell {
  readonly reason: string
  readonly path: string

  constructor(reason: string, path: string) {
    this.reason = reason
    this.path = path
  }
}

/** The cells of a column in a row group of `rows` rows. `leaves` are those below it. Throws where they disagree. */
export function assemble(column: Field, leaves: readonly ColumnValues[], rows: number): unknown[] {
  const cells: unknown[] = []
  const reading: Reading = {
    leaves: leaves.map((leaf) => ({ ...leaf, at: 0, next: 0 })),
    base: column.first,
    refused: null,
  }
  let last: RefusedCell | null = null
  for (let row = 0; row < rows; row++) {
    const value = readField(column, reading)
    const { refused } = reading
    reading.refused = null
    if (!refused) cells.push(value)
    else {
      const { reason, path } = refused
      // Many cells may have one value of a dictionary.
      if (last?.reason !== reason || last.path !== path) last = new RefusedCell(reason, path)
      cells.push(last)
    }
  }
  for (const leaf of reading.leaves) {
    if (leaf.at !== leaf.entries) throw new Error(`${leaf.entries - leaf.at} values are left after ${rows} rows`)
  }
  return cells
}

function readField(field: Field, reading: Reading): unknown {
  const leaf = reading.leaves[field.first - reading.base]
  if (leaf.at >= leaf.entries) throw new Error(`it has only ${leaf.entries} values`)
  if (field.optional && leaf.definition![leaf.at] < field.present) {
    pass(field, reading)
    return null
  }
  if (field.kind === 'leaf') {
    // An item that is not there although those around it are: the levels are those of no table.
    if (leaf.definition && leaf.definition[leaf.at] !== field.present)
      throw new Error('its levels contradict each other')
    leaf.at++
    const value = leaf.values[leaf.next++]
    if (!(value instanceof Refused)) return value
    reading.refused ??= { reason: value.reason, path: field.path }
    return null
  }
  if (field.kind === 'struct') {
    const struct: Record<string, unknown> = {}
    for (const inner of field.fields) set(struct, inner.name, readField(inner, reading))
    return struct
  }
  const items: unknown[] = []
  if (leaf.definition![leaf.at] < field.filled) pass(field, reading)
  else {
    do items.push(readField(field.item, reading))
    while (goesOn(field, reading))
  }
  return field.kind === 'list' ? items : readMap(field, items, reading)
}

/** Moves all leaves of a field over an entry that has no value. */
function pass(field: Field, { leaves, base }: Reading): void {
  const level = field.kind === 'list' || field.kind === 'map' ? field.filled : field.present
  for (let i = field.first; i < field.end; i++) {
    const leaf = leaves[i - base]
    if (leaf.at >= leaf.entries) throw new Error(`it has only ${leaf.entries} values`)
    if (leaf.definition![leaf.at] >= level) throw new Error('its levels contradict each other')
    leaf.at++
  }
}

/** Says whether the list at hand has another item; all leaves below it must agree. */
function goesOn(field: List, { leaves, base }: Reading): boolean {
  const first = hasMore(leaves[field.first - base], field.repeated)
  for (let i = field.first + 1; i < field.end; i++) {
    if (hasMore(leaves[i - base], field.repeated) !== first) throw new Error('its levels contradict each other')
  }
  return first
}

function hasMore({ at, entries, repetition }: Cursor, repeated: number): boolean {
  return at < entries && repetition![at] >= repeated
}

/** Entries whose keys are texts become an object, others a list of keys and values. */
function readMap(field: List, items: unknown[], reading: Reading): unknown {
  const [key, value] = (field.item as Extract<Field, { kind: 'struct' }>).fields
  const entries = items as Record<string, unknown>[]
  if (key.element.type !== 'BYTE_ARRAY') {
    return entries.map((entry) => ({ key: entry[key.name], value: entry[value.name] }))
  }
  const map: Record<string, unknown> = {}
  for (const entry of entries) {
    const name = `${entry[key.name]}`
    if (Object.hasOwn(map, name))
      reading.refused ??= { reason: 'a map with a key that is there twice', path: field.path }
    set(map, name, entry[value.name])
  }
  return map
}

/** Sets a property whatever its name; `__proto__` would be no property otherwise. */
export function set(object: Record<string, unknown>, name: string, value: unknown): void {
  if (name === '__proto__')
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true })
  else object[name] = value
}
