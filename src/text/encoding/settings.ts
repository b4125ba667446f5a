// Reads the parts of a tokenizer.json: every value is checked, and an error names its place.
import { isObject, show } from '../../files/json.ts'

/** An object of a tokenizer.json with the place where it stands. */
export class Settings {
  readonly #json: Record<string, unknown>
  readonly where: string

  constructor(json: unknown, where: string) {
    if (!isObject(json)) throw new Error(`${where} must be an object, got ${show(json)}`)
    this.#json = json
    this.where = where
  }

  /** The value as it stands; undefined where there is none. */
  raw(key: string): unknown {
    return Object.hasOwn(this.#json, key) ? this.#json[key] : undefined
  }

  /** Where a value stands. */
  at(key: string): string {
    return `${this.where}${this.where.includes(': ') ? '.' : ': '}${key}`
  }

  fail(key: string, wanted: string): never {
    throw new Error(`${this.at(key)} must be ${wanted}, got ${show(this.raw(key))}`)
  }

  text(key: string, fallback?: string): string {
    const value = this.raw(key)
    if (value === undefined && fallback !== undefined) return fallback
    return typeof value === 'string' ? value : this.fail(key, 'a text')
  }

  /** A text, or null where there is none. */
  textOrNull(key: string): string | null {
    return (this.raw(key) ?? null) === null ? null : this.text(key)
  }

  flag(key: string, fallback?: boolean): boolean {
    const value = this.raw(key)
    if ((value === undefined || value === null) && fallback !== undefined) return fallback
    return typeof value === 'boolean' ? value : this.fail(key, 'true or false')
  }

  count(key: string, fallback?: number): number {
    const value = this.raw(key)
    if (value === undefined && fallback !== undefined) return fallback
    return Number.isSafeInteger(value) && (value as number) >= 0
      ? (value as number)
      : this.fail(key, 'a whole number of at least 0')
  }

  choice<T extends string>(key: string, options: readonly T[], fallback?: T): T {
    const value = this.raw(key)
    if (value === undefined && fallback !== undefined) return fallback
    const found = options.find((option) => option === value)
    return found ?? this.fail(key, `one of ${options.map(show).join(', ')}`)
  }

  /** One character, of one code point. */
  character(key: string, fallback?: string): string {
    const value = this.text(key, fallback)
    return Array.from(value).length === 1 ? value : this.fail(key, 'one character')
  }

  /** A token id. */
  id(key: string): number {
    return isId(this.raw(key)) ? (this.raw(key) as number) : this.fail(key, ID_RULE)
  }

  settings(key: string): Settings {
    return new Settings(this.raw(key), this.at(key))
  }

  /** The settings of a part that may be null or missing. */
  part(key: string): Settings | null {
    return (this.raw(key) ?? null) === null ? null : this.settings(key)
  }

  list(key: string): Settings[] {
    const value = this.raw(key)
    if (!Array.isArray(value)) return this.fail(key, 'a list')
    return Array.from(value, (item, i) => new Settings(item, `${this.at(key)}[${i}]`))
  }

  entries(): [string, unknown][] {
    return Object.entries(this.#json)
  }

  /** What to do with a part that has no counterpart here. */
  refuse(what: string): never {
    throw new Error(`${this.at('type')}: the ${what} ${show(this.raw('type') ?? null)} is not supported`)
  }
}

/** Far above every vocabulary; what lies above it is a mistake, and two ids below it fit into one number. */
export const ID_LIMIT = 2 ** 24
export const ID_RULE = `a whole number from 0 to ${ID_LIMIT - 1}`

export function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < ID_LIMIT
}
