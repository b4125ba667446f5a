// Chat templates: jinja2 as transformers sets it up, with bounds on what a template may spend.
//
// Written for this project because templates come from Python and must give what Python gives: its texts of values, its rules of
// scopes, its errors. What is not supported is refused by name. Sources: the documentation and the behaviour of jinja2 3.1 and
// of transformers' _compile_jinja_template (trim_blocks, lstrip_blocks, loop controls, {% generation %}, sandbox).
import { bind, wholeNumber } from './arguments.ts'
import { Budget, TemplateError } from './budget.ts'
import { strftime } from './clock.ts'
import { Evaluator, Scope } from './evaluate.ts'
import { FILTERS } from './filters.ts'
import { cycler, joiner } from './list_filters.ts'
import { Loop } from './loop.ts'
import { checkNames, uses } from './names.ts'
import { parse } from './parser.ts'
import { textOf } from './show.ts'
import type { Expression, Signature, Statement, Target } from './syntax.ts'
import { TESTS } from './tests.ts'
import {
  Callable,
  Dict,
  isTrue,
  iterate,
  type Named,
  Namespace,
  Range,
  Tuple,
  Undefined,
  type Value,
} from './values.ts'

/** What of JavaScript may be given to a template; whole numbers become Python's int. */
export type Data = null | boolean | number | string | readonly Data[] | { readonly [key: string]: Data }

export interface Template {
  /** Renders; throws `TemplateError` where Python raises, and where a bound is passed. `now` is what strftime_now sees. */
  render(variables: { readonly [key: string]: Data }, now?: Date): string
}

export function compile(source: string): Template {
  const body = parse(source)
  checkNames(body, { filters: new Set(Object.keys(FILTERS)), tests: new Set(Object.keys(TESTS)) })
  return {
    render(variables, now) {
      const scope = new Scope(null)
      const budget = new Budget()
      for (const [name, value] of Object.entries(globals(now ?? null))) scope.set(name, value)
      for (const [name, value] of Object.entries(variables)) scope.set(name, fromData(value, budget))
      return new Renderer(budget).body(body, new Scope(scope))
    },
  }
}

function fromData(data: Data, budget: Budget): Value {
  budget.spend()
  if (data === null || typeof data === 'boolean' || typeof data === 'string') return data
  if (typeof data === 'number') return Number.isSafeInteger(data) ? BigInt(data) : data
  if (Array.isArray(data)) return data.map((item: Data) => fromData(item, budget))
  return new Dict(Object.entries(data).map(([key, value]) => [key, fromData(value as Data, budget)] as const))
}

/** jinja2's sandbox has no longer ranges. */
const RANGE_LIMIT = 100000

function globals(now: Date | null): Record<string, Value> {
  const functions: Record<string, (positional: readonly Value[], named: Named) => Value> = {
    range(positional, named) {
      if (named.size > 0) throw new TemplateError('range() takes no keyword arguments')
      const numbers = positional.map(wholeNumber)
      if (numbers.length < 1 || numbers.length > 3)
        throw new TemplateError(`range expected 1 to 3 arguments, got ${numbers.length}`)
      const [start, stop, step] = numbers.length === 1 ? [0, numbers[0], 1] : [numbers[0], numbers[1], numbers[2] ?? 1]
      if (step === 0) throw new TemplateError('range() arg 3 must not be zero')
      const range = new Range(start, stop, step)
      if (range.length > RANGE_LIMIT) {
        throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${RANGE_LIMIT}).`)
      }
      return range
    },
    dict: (positional, named) => dictOf(positional, named),
    namespace(positional, named) {
      const namespace = new Namespace()
      for (const [name, value] of dictOf(positional, named).entries()) namespace.set(name, value)
      return namespace
    },
    cycler: (positional) => cycler(positional),
    joiner,
    raise_exception(positional, named) {
      const [message] = bind('raise_exception', ['message'], 1, positional, named)
      throw new TemplateError(textOf(message!, new Budget()))
    },
    strftime_now(positional, named) {
      const [format] = bind('strftime_now', ['format'], 1, positional, named)
      if (typeof format !== 'string') throw new TemplateError('strftime() argument 1 must be str')
      return strftime(format, now ?? new Date())
    },
    lipsum() {
      throw new TemplateError('lipsum() is not supported')
    },
  }
  return Object.fromEntries(Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]))
}

function dictOf(positional: readonly Value[], named: Named): Dict {
  if (positional.length > 1) throw new TemplateError(`dict expected at most 1 argument, got ${positional.length}`)
  const dict = new Dict()
  const [from] = positional
  if (from instanceof Dict) for (const [key, value] of from.entries()) dict.set(key, value)
  else if (from !== undefined) {
    for (const pair of iterate(from)) {
      const [key, value, ...more] = iterate(pair)
      if (value === undefined || more.length > 0)
        throw new TemplateError('dictionary update sequence elements must have length 2')
      dict.set(key, value)
    }
  }
  for (const [key, value] of named) dict.set(key, value)
  return dict
}

type Jump = 'break' | 'continue' | null

/** Collects what is written. */
class Output {
  readonly #parts: string[] = []
  readonly #budget: Budget
  #length = 0

  constructor(budget: Budget) {
    this.#budget = budget
  }

  add(text: string): void {
    this.#length += text.length
    // What is joined at the end must be bounded, and what is added must be paid.
    this.#budget.spend(text.length / 16)
    if (this.#length > 2 ** 24) this.#budget.size(this.#length)
    this.#parts.push(text)
  }

  text(): string {
    return this.#parts.join('')
  }
}

class Renderer {
  readonly #evaluator: Evaluator
  readonly #budget: Budget

  constructor(budget: Budget) {
    this.#budget = budget
    this.#evaluator = new Evaluator(budget)
  }

  /** The text of statements that have an output of their own. */
  body(statements: readonly Statement[], scope: Scope): string {
    const out = new Output(this.#budget)
    if (this.#run(statements, scope, out) !== null)
      throw new TemplateError("'break' or 'continue' stands outside of a loop")
    return out.text()
  }

  #value(node: Expression, scope: Scope): Value {
    return this.#evaluator.value(node, scope)
  }

  #run(statements: readonly Statement[], scope: Scope, out: Output): Jump {
    for (const statement of statements) {
      const jump = this.#statement(statement, scope, out)
      if (jump !== null) return jump
    }
    return null
  }

  #statement(node: Statement, scope: Scope, out: Output): Jump {
    this.#budget.spend()
    switch (node.kind) {
      case 'text':
        out.add(node.text)
        return null
      case 'print':
        out.add(textOf(this.#value(node.value, scope), this.#budget))
        return null
      case 'if': {
        const branch = node.branches.find(([test]) => isTrue(this.#value(test, scope)))
        return this.#run(branch?.[1] ?? node.otherwise, scope, out)
      }
      case 'for':
        this.#for(node, this.#value(node.over, scope), scope, out, 0)
        return null
      case 'set':
        this.#assign(node.target, this.#value(node.value, scope), scope)
        return null
      case 'set_block': {
        const text = this.body(node.body, new Scope(scope))
        this.#assign(node.target, this.#evaluator.filters(node.filters, text, scope), scope)
        return null
      }
      case 'filter_block': {
        const text = this.body(node.body, new Scope(scope))
        out.add(textOf(this.#evaluator.filters(node.filters, text, scope), this.#budget))
        return null
      }
      case 'with': {
        const inner = new Scope(scope)
        const values = node.values.map(([target, value]) => [target, this.#value(value, scope)] as const)
        for (const [target, value] of values) this.#assign(target, value, inner)
        return this.#run(node.body, inner, out)
      }
      case 'macro':
        scope.set(node.name, this.#macro(node.name, node.signature, node.body, scope))
        return null
      case 'call_block': {
        const caller = this.#macro(null, node.signature, node.body, scope)
        if (node.call.kind !== 'call') throw new TemplateError('expected call')
        const callee = this.#value(node.call.callee, scope)
        const [positional, named] = this.#evaluator.args(node.call.args, scope)
        named.set('caller', caller)
        out.add(textOf(this.#evaluator.call(callee, positional, named), this.#budget))
        return null
      }
      case 'generation':
        out.add(this.body(node.body, new Scope(scope)))
        return null
      case 'break':
      case 'continue':
        return node.kind
    }
  }

  #for(node: Statement & { kind: 'for' }, over: Value, scope: Scope, out: Output, depth: number): void {
    const recurse = (inner: Value): Value => {
      return this.#budget.call(() => {
        const own = new Output(this.#budget)
        this.#for(node, inner, scope, own, depth + 1)
        return own.text()
      })
    }
    const items = this.#chosen(node, over, scope)
    const loop = new Loop(
      node.test === null ? over : new Callable('filtered', () => null),
      items,
      depth,
      node.recursive ? recurse : null,
    )
    let whole = false
    for (let item = loop.next(); item !== undefined; item = loop.next()) {
      this.#budget.spend()
      const inner = new Scope(scope)
      inner.set('loop', loop.members)
      this.#assign(node.target, item, inner)
      const jump = this.#run(node.body, inner, out)
      if (jump === 'break') break
      whole ||= jump === null
    }
    // jinja2 runs the else where no pass came to its end, be it by a break or a continue.
    if (!whole) {
      const jump = this.#run(node.otherwise, new Scope(scope), out)
      if (jump !== null) throw new TemplateError(`'${jump}' in the else of a loop is not supported`)
    }
  }

  /** The items for which the loop's test holds, found one at a time. */
  #chosen(node: Statement & { kind: 'for' }, over: Value, scope: Scope): Iterable<Value> {
    const { test, target } = node
    if (test === null) return iterate(over)
    const holds = (item: Value): boolean => {
      const inner = new Scope(scope)
      this.#assign(target, item, inner)
      return isTrue(this.#value(test, inner))
    }
    return (function* (items: Iterable<Value>): Generator<Value> {
      for (const item of items) if (holds(item)) yield item
    })(iterate(over))
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') scope.set(target.name, value)
    else if (target.kind === 'member') {
      const of = scope.get(target.of)
      if (!(of instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object')
      of.set(target.name, value)
    } else {
      const items: Value[] = []
      for (const item of iterate(value)) {
        items.push(item)
        if (items.length > target.items.length)
          throw new TemplateError(`too many values to unpack (expected ${target.items.length})`)
      }
      if (items.length < target.items.length) {
        throw new TemplateError(`not enough values to unpack (expected ${target.items.length}, got ${items.length})`)
      }
      for (const [i, inner] of target.items.entries()) this.#assign(inner, items[i], scope)
    }
  }

  #macro(name: string | null, { names, defaults }: Signature, body: readonly Statement[], scope: Scope): Callable {
    const special = ['caller', 'kwargs', 'varargs'].filter((word) => !names.includes(word) && uses(body, word))
    const call = (positional: readonly Value[], given: Named): Value => {
      const inner = new Scope(scope)
      const named = new Map(given)
      for (const [i, parameter] of names.entries()) {
        let value: Value | undefined = positional[i]
        if (value === undefined) {
          value = named.get(parameter)
          named.delete(parameter)
        }
        if (value === undefined) {
          const fallback = defaults[i - names.length + defaults.length]
          value =
            fallback === undefined
              ? new Undefined(`parameter '${parameter}' was not provided`)
              : this.#value(fallback, inner)
        }
        inner.set(parameter, value)
      }
      if (special.includes('caller')) {
        const caller = named.get('caller') ?? null
        inner.set('caller', caller === null ? new Undefined('No caller defined') : caller)
        named.delete('caller')
      }
      if (special.includes('kwargs')) inner.set('kwargs', new Dict(named))
      else if (named.size > 0)
        throw new TemplateError(`macro ${name} takes no keyword argument '${[...named.keys()][0]}'`)
      if (special.includes('varargs')) inner.set('varargs', new Tuple(positional.slice(names.length)))
      else if (positional.length > names.length) {
        throw new TemplateError(`macro ${name} takes not more than ${names.length} argument(s)`)
      }
      return this.#budget.call(() => this.body(body, inner))
    }
    const members = new Map<string, Value>([
      ['name', name],
      ['arguments', new Tuple(names)],
      ['catch_kwargs', special.includes('kwargs')],
      ['catch_varargs', special.includes('varargs')],
      ['caller', special.includes('caller') || names.includes('caller')],
    ])
    return new Macro(name ?? 'anonymous', call, members)
  }
}

class Macro extends Callable {
  override readonly type = 'Macro'
}
