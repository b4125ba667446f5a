// What parsers of regular expressions have in common: a place in the source, choices of sequences, bounds and errors.
import { show } from '../files/json.ts'

/** Real expressions have some ten to a hundred characters; deep ones would exhaust the stack. */
const LENGTH_LIMIT = 4096

/** Reads a source from its beginning to its end; a dialect says what a sequence is. */
export abstract class RegexReader<Part> {
  protected readonly source: string
  protected at = 0
  readonly #where: string
  readonly #depthLimit: number
  #depth = 0

  /** `where` is what errors call the expression's place. Throws on a source that is too long. */
  constructor(source: string, where: string, depthLimit: number) {
    if (source.length > LENGTH_LIMIT) {
      throw new Error(
        `${where}: the regular expression has ${source.length} characters, at most ${LENGTH_LIMIT} are read`,
      )
    }
    this.source = source
    this.#where = where
    this.#depthLimit = depthLimit
  }

  /** The whole expression. */
  parse(): Part {
    const part = this.choice()
    if (this.at < this.source.length) this.fail('has a ) too many')
    return part
  }

  /** One thing after the other, up to a | or ). */
  protected abstract sequence(): Part
  /** One of several parts. */
  protected abstract either(parts: Part[]): Part

  protected choice(): Part {
    if (++this.#depth > this.#depthLimit) this.fail(`has more than ${this.#depthLimit} groups in each other`)
    const parts = [this.sequence()]
    while (this.take('|')) parts.push(this.sequence())
    this.#depth--
    return parts.length === 1 ? parts[0] : this.either(parts)
  }

  /** Whether a sequence goes on. */
  protected get inSequence(): boolean {
    return this.at < this.source.length && !'|)'.includes(this.source[this.at])
  }

  /** Goes past a text where it is next. */
  protected take(text: string): boolean {
    if (!this.source.startsWith(text, this.at)) return false
    this.at += text.length
    return true
  }

  protected fail(what: string): never {
    throw new Error(`${this.#where}: the regular expression ${show(this.source)} ${what} (at character ${this.at + 1})`)
  }
}
