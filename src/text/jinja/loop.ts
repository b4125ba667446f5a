// What a template sees as `loop`. It looks one item ahead where it is asked for what comes, and reads all where it is asked how many.
import { TemplateError } from './budget.ts'
import { Callable, isEqual, lengthOf, Members, Undefined, type Value } from './values.ts'

export class Loop {
  #iterator: Iterator<Value, unknown>
  #length: number | null
  #ahead: { readonly value: Value } | null = null
  #before: Value | null = null
  #current: Value | null = null
  #index = -1
  #seen: readonly Value[] | null = null
  readonly members: Members

  constructor(over: Value, items: Iterable<Value>, depth: number, recurse: ((over: Value) => Value) | null) {
    this.#iterator = items[Symbol.iterator]()
    this.#length = lengthOf(over)
    const show = (): string => `<LoopContext ${this.#index + 1}/${this.#count()}>`
    this.members = new Members(
      'LoopContext',
      (name) => this.#member(name, depth),
      show,
      (positional) => {
        if (recurse === null)
          throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.")
        return recurse(positional[0])
      },
    )
  }

  /** Goes on to the next item, undefined where there is none. */
  next(): Value | undefined {
    let value: Value
    if (this.#ahead !== null) {
      value = this.#ahead.value
      this.#ahead = null
    } else {
      const result = this.#iterator.next()
      if (result.done) return undefined
      value = result.value
    }
    this.#index++
    this.#before = this.#current
    this.#current = value
    return value
  }

  #peek(): { readonly value: Value } | null {
    if (this.#ahead === null) {
      const result = this.#iterator.next()
      if (!result.done) this.#ahead = { value: result.value }
    }
    return this.#ahead
  }

  #count(): number {
    if (this.#length === null) {
      const rest: Value[] = []
      for (let result = this.#iterator.next(); !result.done; result = this.#iterator.next()) rest.push(result.value)
      this.#iterator = rest[Symbol.iterator]()
      this.#length = rest.length + this.#index + 1 + (this.#ahead === null ? 0 : 1)
    }
    return this.#length
  }

  #member(name: string, depth: number): Value | undefined {
    switch (name) {
      case 'index':
        return BigInt(this.#index + 1)
      case 'index0':
        return BigInt(this.#index)
      case 'revindex':
        return BigInt(this.#count() - this.#index)
      case 'revindex0':
        return BigInt(this.#count() - this.#index - 1)
      case 'length':
        return BigInt(this.#count())
      case 'first':
        return this.#index === 0
      case 'last':
        return this.#peek() === null
      case 'depth':
        return BigInt(depth + 1)
      case 'depth0':
        return BigInt(depth)
      case 'previtem':
        return this.#index === 0 ? new Undefined('there is no previous item') : this.#before
      case 'nextitem':
        return (this.#peek() ?? { value: new Undefined('there is no next item') }).value
      case 'cycle':
        return new Callable(name, (positional) => {
          if (positional.length === 0) throw new TemplateError('no items for cycling given')
          return positional[this.#index % positional.length]
        })
      case 'changed':
        return new Callable(name, (positional) => {
          const seen = this.#seen
          const same =
            seen !== null && seen.length === positional.length && seen.every((one, i) => isEqual(one, positional[i]))
          this.#seen = positional
          return !same
        })
    }
    return undefined
  }
}
