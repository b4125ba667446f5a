// What an entry of the table of datasets says, and the rows it gives.
import type { Message } from '../text/chat.ts'
import type { Unusable } from './fields.ts'
import type { Scale } from './scale.ts'

/** A text and its labels: one number, several of several raters, or null where it has none. */
export interface RatedRow {
  readonly text: { readonly prompt: string; readonly response: string } | { readonly messages: readonly Message[] }
  readonly labels: Readonly<Record<string, number | number[] | null>>
}

/** Two or more texts of which the first are better. */
export interface RankedRow {
  /** Texts after one prompt, two conversations, or (best of several) lists of texts after one prompt. */
  readonly text:
    | { readonly prompt: string; readonly chosen: string; readonly rejected: string }
    | { readonly chosen: readonly Message[]; readonly rejected: readonly Message[] }
    | { readonly prompt: string; readonly chosen: readonly string[]; readonly rejected: readonly string[] }
  readonly subset: string
  /** The name that the dataset itself gives to the row; a hash of its text without it. */
  readonly id?: string
  /** Other fields that an evaluation needs. */
  readonly more?: Readonly<Record<string, unknown>>
}

export interface Attribute {
  /** The name that the published models use. */
  readonly name: string
  /** The column, or the path in it, that holds the rating. */
  readonly column: string
  readonly scale: Scale
}

interface Entry {
  /** What --dataset calls it. */
  readonly name: string
  /** The paper's name for it. */
  readonly title: string
  /** Repository of the hub. */
  readonly hub: string
  /** Files of the split: a pattern as matchHub takes it. */
  readonly files: string
  readonly columns: readonly string[]
  /** How many rows or pairs the paper counts; null where it does not say. */
  readonly size: number | null
  /** As the dataset's card names it; null where it names none. */
  readonly licence: string | null
  /** What is not published and was decided here, with the reason. */
  readonly assumed: readonly string[]
}

export interface AttributeSet extends Entry {
  readonly kind: 'attributes'
  readonly attributes: readonly Attribute[]
  /** The rows of one record, and those of its texts that are unusable. Throws Unusable (the whole record) and FormError. */
  readonly read: (record: Record<string, unknown>, attributes: readonly Attribute[]) => (RatedRow | Unusable)[]
}

export interface RankedSet extends Entry {
  readonly kind: 'preferences' | 'evaluation'
  /** The rows of one record of the file `path`. Throws Unusable and FormError. */
  readonly read: (record: Record<string, unknown>, path: string) => RankedRow[]
}

export type Dataset = AttributeSet | RankedSet
