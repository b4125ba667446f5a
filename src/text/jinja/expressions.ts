// Parses the expressions of a template. Source: jinja2's parser (3.1), with its order of operators.
import { TemplateError } from './budget.ts'
import type { Arguments, Expression, FilterCall } from './syntax.ts'
import type { Token, TokenKind } from './tokens.ts'

// Python's own parser gives up at 200 parentheses inside each other.
const DEPTH_LIMIT = 200
const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=']
const CONSTANTS: Readonly<Record<string, null | boolean>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
}

export class ExpressionParser {
  readonly #tokens: readonly Token[]
  #at = 0
  #depth = 0

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens
  }

  get now(): Token {
    return this.#tokens[this.#at]
  }

  next(): Token {
    const token = this.now
    if (token.kind !== 'end') this.#at++
    return token
  }

  fail(message: string): never {
    throw new TemplateError(`${message} (line ${this.now.line})`)
  }

  is(kind: TokenKind, value?: string): boolean {
    return this.now.kind === kind && (value === undefined || this.now.value === value)
  }

  operator(value: string): boolean {
    return this.is('operator', value)
  }

  word(value: string): boolean {
    return this.is('name', value)
  }

  /** Goes past a word or an operator, where it is there. */
  skip(value: string): boolean {
    if (!this.operator(value) && !this.word(value)) return false
    this.#at++
    return true
  }

  expect(kind: TokenKind, value?: string): Token {
    if (!this.is(kind, value)) {
      const found = this.now.kind === 'end' ? 'end of template' : this.now.value || this.now.kind.replace('_', ' of ')
      this.fail(`expected token '${value ?? kind.replace('_', ' of ')}', got '${found}'`)
    }
    return this.next()
  }

  /** One level deeper; a wild template must not exhaust the stack. */
  deeper<T>(parse: () => T): T {
    if (++this.#depth > DEPTH_LIMIT) this.fail(`nests more than ${DEPTH_LIMIT} deep`)
    const result = parse()
    this.#depth--
    return result
  }

  expression(withChoice = true): Expression {
    return this.deeper(() => (withChoice ? this.#choice() : this.#or()))
  }

  /** Expressions with commas between them are a tuple. `ends` are words that end it. */
  tuple({
    choice = true,
    ends = [],
    parentheses = false,
  }: {
    choice?: boolean
    ends?: string[]
    parentheses?: boolean
  } = {}): Expression {
    const items: Expression[] = []
    let isTuple = false
    for (;;) {
      if (items.length > 0) this.expect('operator', ',')
      if (this.#endsTuple(ends)) break
      items.push(this.expression(choice))
      if (!this.operator(',')) break
      isTuple = true
    }
    if (!isTuple) {
      if (items.length > 0) return items[0]
      if (!parentheses)
        this.fail(`Expected an expression, got '${this.now.value || this.now.kind.replace('_', ' of ')}'`)
    }
    return { kind: 'tuple', items }
  }

  #endsTuple(ends: readonly string[]): boolean {
    if (['print_end', 'block_end', 'end'].includes(this.now.kind) || this.operator(')')) return true
    return this.now.kind === 'name' && ends.includes(this.now.value)
  }

  #choice(): Expression {
    let yes = this.#or()
    while (this.skip('if')) {
      const test = this.#or()
      const no = this.skip('else') ? this.deeper(() => this.#choice()) : null
      yes = { kind: 'choice', test, yes, no }
    }
    return yes
  }

  #or(): Expression {
    let left = this.#and()
    while (this.skip('or')) left = { kind: 'or', left, right: this.#and() }
    return left
  }

  #and(): Expression {
    let left = this.#not()
    while (this.skip('and')) left = { kind: 'and', left, right: this.#not() }
    return left
  }

  #not(): Expression {
    if (!this.skip('not')) return this.#compare()
    return { kind: 'not', of: this.deeper(() => this.#not()) }
  }

  #compare(): Expression {
    const first = this.#sum()
    const rest: [string, Expression][] = []
    for (;;) {
      if (this.now.kind === 'operator' && COMPARISONS.includes(this.now.value))
        rest.push([this.next().value, this.#sum()])
      else if (this.skip('in')) rest.push(['in', this.#sum()])
      else if (
        this.word('not') &&
        this.#tokens[this.#at + 1].kind === 'name' &&
        this.#tokens[this.#at + 1].value === 'in'
      ) {
        this.#at += 2
        rest.push(['not in', this.#sum()])
      } else break
    }
    return rest.length === 0 ? first : { kind: 'compare', first, rest }
  }

  #binary(operators: readonly string[], part: () => Expression): Expression {
    let left = part()
    while (this.now.kind === 'operator' && operators.includes(this.now.value)) {
      left = { kind: 'arithmetic', operator: this.next().value, left, right: part() }
    }
    return left
  }

  #sum(): Expression {
    return this.#binary(['+', '-'], () => this.#concat())
  }

  #concat(): Expression {
    const parts = [this.#product()]
    while (this.skip('~')) parts.push(this.#product())
    return parts.length === 1 ? parts[0] : { kind: 'concat', parts }
  }

  #product(): Expression {
    return this.#binary(['*', '/', '//', '%'], () => this.#power())
  }

  #power(): Expression {
    return this.#binary(['**'], () => this.#unary(true))
  }

  #unary(filtered: boolean): Expression {
    let node: Expression
    if (this.skip('-')) node = { kind: 'minus', of: this.deeper(() => this.#unary(false)) }
    else if (this.skip('+')) node = { kind: 'plus', of: this.deeper(() => this.#unary(false)) }
    else node = this.primary()
    node = this.postfix(node)
    return filtered ? this.#filtered(node) : node
  }

  primary(): Expression {
    const token = this.next()
    switch (token.kind) {
      case 'name':
        if (Object.hasOwn(CONSTANTS, token.value)) return { kind: 'constant', value: CONSTANTS[token.value] }
        return { kind: 'name', name: token.value }
      case 'string': {
        const texts = [token.value]
        while (this.is('string')) texts.push(this.next().value)
        return { kind: 'constant', value: texts.join('') }
      }
      case 'integer':
        return { kind: 'constant', value: BigInt(token.value) }
      case 'float':
        return { kind: 'constant', value: Number(token.value) }
      case 'operator':
        if (token.value === '(') {
          const node = this.deeper(() => this.tuple({ parentheses: true }))
          this.expect('operator', ')')
          return node
        }
        if (token.value === '[') return { kind: 'list', items: this.#items(']', () => this.expression()) }
        if (token.value === '{') {
          const entries = this.#items('}', () => {
            const key = this.expression()
            this.expect('operator', ':')
            return [key, this.expression()] as const
          })
          return { kind: 'dict', entries }
        }
    }
    this.#at = Math.max(0, this.#at - (token.kind === 'end' ? 0 : 1))
    return this.fail(`unexpected '${token.value || token.kind.replace('_', ' of ')}'`)
  }

  #items<T>(close: string, item: () => T): T[] {
    const items: T[] = []
    while (!this.operator(close)) {
      if (items.length > 0) this.expect('operator', ',')
      if (this.operator(close)) break
      items.push(item())
    }
    this.next()
    return items
  }

  postfix(start: Expression): Expression {
    let node = start
    for (;;) {
      if (this.skip('.')) {
        const token = this.next()
        if (token.kind === 'name') node = { kind: 'attribute', of: node, name: token.value }
        else if (token.kind === 'integer') {
          node = { kind: 'item', of: node, key: { kind: 'constant', value: BigInt(token.value) } }
        } else this.fail('expected name or number')
      } else if (this.skip('[')) node = { kind: 'item', of: node, key: this.#subscript() }
      else if (this.operator('(')) node = { kind: 'call', callee: node, args: this.args() }
      else return node
    }
  }

  #subscript(): Expression {
    const items: Expression[] = []
    while (!this.operator(']')) {
      if (items.length > 0) this.expect('operator', ',')
      items.push(this.#slice())
    }
    this.next()
    if (items.length === 0) this.fail('expected subscript expression')
    return items.length === 1 ? items[0] : { kind: 'tuple', items }
  }

  #slice(): Expression {
    const parts: (Expression | null)[] = []
    if (this.skip(':')) parts.push(null)
    else {
      const node = this.expression()
      if (!this.skip(':')) return node
      parts.push(node)
    }
    if (this.operator(':')) parts.push(null)
    else parts.push(this.operator(']') || this.operator(',') ? null : this.expression())
    if (this.skip(':')) parts.push(this.operator(']') || this.operator(',') ? null : this.expression())
    else parts.push(null)
    return { kind: 'slice', start: parts[0], stop: parts[1], step: parts[2] }
  }

  #filtered(start: Expression): Expression {
    let node = start
    for (;;) {
      if (this.operator('|')) {
        for (const filter of this.filters()) node = { kind: 'filter', of: node, filter }
      } else if (this.word('is')) node = this.#test(node)
      else if (this.operator('(')) node = { kind: 'call', callee: node, args: this.args() }
      else return node
    }
  }

  /** Filters that follow each other, each after its bar; the first without one where `inline`. */
  filters(inline = false): FilterCall[] {
    const filters: FilterCall[] = []
    let begun = inline
    while (begun || this.skip('|')) {
      begun = false
      const name = this.#dotted()
      filters.push({ name, args: this.operator('(') ? this.args() : NO_ARGUMENTS })
    }
    return filters
  }

  #dotted(): string {
    let name = this.expect('name').value
    while (this.skip('.')) name += `.${this.expect('name').value}`
    return name
  }

  #test(of: Expression): Expression {
    this.next()
    const negated = this.skip('not')
    const name = this.#dotted()
    let args = NO_ARGUMENTS
    if (this.operator('(')) args = this.args()
    else if (
      ['name', 'string', 'integer', 'float'].includes(this.now.kind) ||
      ['[', '{'].some((bracket) => this.operator(bracket))
    ) {
      if (!['else', 'or', 'and'].some((word) => this.word(word))) {
        if (this.word('is')) this.fail('You cannot chain multiple tests with is')
        args = { ...NO_ARGUMENTS, positional: [this.postfix(this.primary())] }
      }
    }
    const node: Expression = { kind: 'test', of, test: { name, args } }
    return negated ? { kind: 'not', of: node } : node
  }

  args(): Arguments {
    this.expect('operator', '(')
    const positional: Expression[] = []
    const named: [string, Expression][] = []
    let rest: Expression | null = null
    let restNamed: Expression | null = null
    const check = (fits: boolean): void => {
      if (!fits) this.fail('invalid syntax for function call expression')
    }
    for (let first = true; !this.operator(')'); first = false) {
      if (!first) {
        this.expect('operator', ',')
        if (this.operator(')')) break
      }
      if (this.skip('*')) {
        check(rest === null && restNamed === null)
        rest = this.expression()
      } else if (this.skip('**')) {
        check(restNamed === null)
        restNamed = this.expression()
      } else if (this.now.kind === 'name' && this.#isOperator(1, '=')) {
        check(restNamed === null)
        const name = this.next().value
        this.next()
        named.push([name, this.expression()])
      } else {
        check(rest === null && restNamed === null && named.length === 0)
        positional.push(this.expression())
      }
    }
    this.next()
    return { positional, named, rest, restNamed }
  }

  #isOperator(ahead: number, value: string): boolean {
    const token = this.#tokens[this.#at + ahead]
    return token?.kind === 'operator' && token.value === value
  }
}

export const NO_ARGUMENTS: Arguments = { positional: [], named: [], rest: null, restNamed: null }
export const isConstantName = (name: string): boolean => Object.hasOwn(CONSTANTS, name)
