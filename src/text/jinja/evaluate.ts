// Computes the expressions of a template.
import { arithmetic, holds, negate, positive } from './arithmetic.ts'
import { type Budget, TemplateError } from './budget.ts'
import { FILTERS, type Host } from './filters.ts'
import { itemOf, memberOf, slice } from './members.ts'
import { textOf } from './show.ts'
import type { Arguments, Expression, FilterCall } from './syntax.ts'
import { TESTS } from './tests.ts'
import {
  Callable,
  Dict,
  isTrue,
  iterate,
  Members,
  type Named,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

/** Names and their values; what is set in a scope is gone at its end. */
export class Scope {
  readonly #values = new Map<string, Value>()
  readonly #outer: Scope | null

  constructor(outer: Scope | null) {
    this.#outer = outer
  }

  get(name: string): Value {
    for (let scope: Scope | null = this; scope !== null; scope = scope.#outer) {
      const value = scope.#values.get(name)
      if (value !== undefined) return value
    }
    return new Undefined(`'${name}' is undefined`)
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value)
  }
}

const NAMES = { filters: new Set(Object.keys(FILTERS)), tests: new Set(Object.keys(TESTS)) }

export class Evaluator implements Host {
  readonly budget: Budget

  constructor(budget: Budget) {
    this.budget = budget
  }

  filter(name: string, of: Value, positional: readonly Value[], named: Named): Value {
    if (!NAMES.filters.has(name)) throw new TemplateError(`No filter named '${name}'.`)
    return FILTERS[name](of, positional, named, this)
  }

  test(name: string, of: Value, positional: readonly Value[], named: Named): boolean {
    if (!NAMES.tests.has(name)) throw new TemplateError(`No test named '${name}'.`)
    if (named.size > 0) throw new TemplateError(`named arguments of the test '${name}' are not supported`)
    return TESTS[name](of, positional, { ...NAMES, budget: this.budget })
  }

  /** Filters one after the other. */
  filters(calls: readonly FilterCall[], of: Value, scope: Scope): Value {
    return calls.reduce((value, call) => this.filter(call.name, value, ...this.args(call.args, scope)), of)
  }

  args({ positional, named, rest, restNamed }: Arguments, scope: Scope): [Value[], Map<string, Value>] {
    const values = positional.map((node) => this.value(node, scope))
    const byName = new Map(named.map(([name, node]) => [name, this.value(node, scope)] as const))
    if (byName.size < named.length) throw new TemplateError('keyword argument repeated')
    if (rest !== null) for (const value of iterate(this.value(rest, scope))) values.push(value)
    if (restNamed !== null) {
      const more = this.value(restNamed, scope)
      if (!(more instanceof Dict)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(more)}`)
      for (const [name, value] of more.entries()) {
        if (typeof name !== 'string') throw new TemplateError('keywords must be strings')
        if (byName.has(name)) throw new TemplateError(`got multiple values for keyword argument '${name}'`)
        byName.set(name, value)
      }
    }
    return [values, byName]
  }

  call(callee: Value, positional: readonly Value[], named: Named): Value {
    this.budget.spend()
    if (callee instanceof Undefined) return callee.fail()
    if (callee instanceof Callable) return callee.call(positional, named)
    if (callee instanceof Members && callee.call !== null) return callee.call(positional)
    throw new TemplateError(`'${typeName(callee)}' object is not callable`)
  }

  value(node: Expression, scope: Scope): Value {
    this.budget.spend()
    switch (node.kind) {
      case 'constant':
        return node.value
      case 'name':
        return scope.get(node.name)
      case 'list':
        return node.items.map((item) => this.value(item, scope))
      case 'tuple':
        return new Tuple(node.items.map((item) => this.value(item, scope)))
      case 'dict':
        return new Dict(node.entries.map(([key, value]) => [this.value(key, scope), this.value(value, scope)] as const))
      case 'attribute':
        return memberOf(this.value(node.of, scope), node.name, this.budget)
      case 'item': {
        const of = this.value(node.of, scope)
        if (node.key.kind !== 'slice') return itemOf(of, this.value(node.key, scope), this.budget)
        const bounds = [node.key.start, node.key.stop, node.key.step]
        return slice(
          of,
          bounds.map((bound) => (bound === null ? null : this.value(bound, scope))),
          this.budget,
        )
      }
      case 'slice':
        throw new TemplateError('slices inside a tuple are not supported')
      case 'call': {
        const callee = this.value(node.callee, scope)
        return this.call(callee, ...this.args(node.args, scope))
      }
      case 'filter':
        return this.filters([node.filter], this.value(node.of, scope), scope)
      case 'test': {
        const of = this.value(node.of, scope)
        return this.test(node.test.name, of, ...this.args(node.test.args, scope))
      }
      case 'not':
        return !isTrue(this.value(node.of, scope))
      case 'minus':
        return negate(this.value(node.of, scope))
      case 'plus':
        return positive(this.value(node.of, scope))
      case 'and': {
        const left = this.value(node.left, scope)
        return isTrue(left) ? this.value(node.right, scope) : left
      }
      case 'or': {
        const left = this.value(node.left, scope)
        return isTrue(left) ? left : this.value(node.right, scope)
      }
      case 'arithmetic': {
        const left = this.value(node.left, scope)
        return arithmetic(node.operator, left, this.value(node.right, scope), this.budget)
      }
      case 'concat': {
        const parts = node.parts.map((part) => textOf(this.value(part, scope), this.budget))
        this.budget.size(parts.reduce((sum, part) => sum + part.length, 0))
        return parts.join('')
      }
      case 'compare': {
        let left = this.value(node.first, scope)
        for (const [operator, of] of node.rest) {
          const right = this.value(of, scope)
          if (!holds(operator, left, right, this.budget)) return false
          left = right
        }
        return true
      }
      case 'choice':
        if (isTrue(this.value(node.test, scope))) return this.value(node.yes, scope)
        if (node.no !== null) return this.value(node.no, scope)
        return new Undefined('the inline if-expression evaluated to false and no else section was defined.')
    }
  }
}
