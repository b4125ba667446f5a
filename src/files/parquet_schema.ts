// The columns of a Parquet file as fields: values, structs, lists and maps, with the levels that say what is there.
import type { SchemaElement, SchemaTree } from 'hyparquet'
import { show } from './json.ts'

interface Place {
  readonly name: string
  /** Names from the column on, joined by dots; what errors call it. */
  readonly path: string
  readonly element: SchemaElement
  /** The definition level from which the field is there; below it, an optional field is null. */
  readonly present: number
  readonly optional: boolean
  /** Its leaves are those of the file from `first` to before `end`. */
  readonly first: number
  readonly end: number
}

/** A field that holds values. Its levels are at most `present` (definition) and `repeated` (repetition). */
export interface LeafField extends Place {
  readonly kind: 'leaf'
  readonly repeated: number
}

export interface StructField extends Place {
  readonly kind: 'struct'
  readonly fields: readonly Field[]
}

/** A list or map. It has an item from definition level `filled` on; a next item begins at repetition level `repeated`. */
export interface ListField extends Place {
  readonly kind: 'list' | 'map'
  readonly filled: number
  readonly repeated: number
  /** Of a map, a struct of two fields, key and value. */
  readonly item: Field
}

export type Field = LeafField | StructField | ListField

// Levels are bytes, and no table is nested near this.
const DEEPEST = 60

/** The columns of a schema in order, and all leaves below them. Throws on schemas that are nested too deep. */
export function readFields(schema: SchemaTree): { fields: Field[]; leaves: LeafField[] } {
  const leaves: LeafField[] = []
  const place = (tree: SchemaTree, outer: { present: number; repeated: number }, isItem: boolean): Field => {
    const { element, children } = tree
    const { name, repetition_type: repetition } = element
    if (typeof name !== 'string') throw new Error('a column has no name')
    const path = tree.path.join('.')
    if (tree.path.length > DEEPEST) throw new Error(`column ${show(tree.path[0])} is nested more than ${DEEPEST} deep`)
    const first = leaves.length
    const whole = { name, path, element, first }
    // A repeated field outside of a list is a list of its own, which cannot be null.
    if (repetition === 'REPEATED' && !isItem) {
      const repeated = outer.repeated + 1
      const filled = outer.present + 1
      const item = place(tree, { present: filled, repeated }, true)
      const { present } = outer
      return { ...whole, kind: 'list', present, optional: false, filled, repeated, item, end: leaves.length }
    }
    const optional = repetition === 'OPTIONAL'
    const present = outer.present + (optional ? 1 : 0)
    const inner = { present, repeated: outer.repeated }
    if (children.length === 0) {
      if (element.type === undefined) throw new Error(`column ${show(path)} is a group without fields`)
      const leaf: LeafField = {
        ...whole,
        kind: 'leaf',
        present,
        optional,
        repeated: outer.repeated,
        end: first + 1,
      }
      leaves.push(leaf)
      return leaf
    }
    const only = children.length === 1 && children[0].element.repetition_type === 'REPEATED' ? children[0] : null
    const kind = only ? listKind(element) : null
    if (kind !== null && only !== null) {
      const below = { present: present + 1, repeated: outer.repeated + 1 }
      const item = isWrapper(only, name, kind) ? place(only.children[0], below, false) : place(only, below, true)
      const isMap = kind === 'map' && item.kind === 'struct' && item.fields.length === 2
      return {
        ...whole,
        kind: isMap ? 'map' : 'list',
        present,
        optional,
        filled: below.present,
        repeated: below.repeated,
        item,
        end: leaves.length,
      }
    }
    const fields = children.map((child) => place(child, inner, false))
    const names = new Set<string>()
    const twice = fields.find((field) => names.size === names.add(field.name).size)
    if (twice) throw new Error(`column ${show(tree.path[0])} has the field ${show(twice.path)} twice`)
    return { ...whole, kind: 'struct', present, optional, fields, end: leaves.length }
  }
  const fields = schema.children.map((child) => place(child, { present: 0, repeated: 0 }, false))
  return { fields, leaves }
}

function listKind({ logical_type: logical, converted_type: converted }: SchemaElement): 'list' | 'map' | null {
  const annotation = logical?.type ?? converted
  if (annotation === 'LIST') return 'list'
  return annotation === 'MAP' || annotation === 'MAP_KEY_VALUE' ? 'map' : null
}

/** Says whether a repeated group only holds the items of a list; the rules are those of the format for old writers. */
function isWrapper({ element, children }: SchemaTree, list: string, kind: 'list' | 'map'): boolean {
  if (kind === 'map' || children.length !== 1) return false
  if (children[0].element.repetition_type === 'REPEATED') return false
  return element.name !== 'array' && element.name !== `${list}_tuple`
}

/** What a field holds, in a word or two for errors. */
export function kindOf({ element }: Field): string {
  const { type, converted_type: converted, logical_type: logical } = element
  return logical?.type ?? converted ?? type ?? 'nested values'
}

/** A column that cannot be read for what it is, not for damage. The message begins with a verb, or names the file and column. */
export class Unsupported extends Error {}
