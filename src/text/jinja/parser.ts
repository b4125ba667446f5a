// Parses the statements of a template. Source: jinja2's parser (3.1); the tags are those that transformers has.
import { ExpressionParser, isConstantName } from './expressions.ts'
import type { Expression, FilterCall, Signature, Statement, Target } from './syntax.ts'
import { tokenize } from './tokens.ts'

/** Parses a template; throws on what jinja2 refuses and on tags that are not supported. */
export function parse(template: string): readonly Statement[] {
  const parser = new ExpressionParser(tokenize(template))
  const body = statements(parser, [])
  if (!parser.is('end')) parser.fail(`unexpected '${parser.now.value}'`)
  return body
}

/** Statements up to a tag of one of the names, which stays unread after its "{%". */
function statements(parser: ExpressionParser, ends: readonly string[]): Statement[] {
  const body: Statement[] = []
  while (!parser.is('end')) {
    if (parser.is('text')) body.push({ kind: 'text', text: parser.next().value })
    else if (parser.is('print_begin')) {
      parser.next()
      body.push({ kind: 'print', value: parser.tuple() })
      parser.expect('print_end')
    } else {
      parser.expect('block_begin')
      if (parser.now.kind !== 'name') parser.fail('tag name expected')
      if (ends.includes(parser.now.value)) return body
      body.push(parser.deeper(() => statement(parser, ends)))
    }
  }
  if (ends.length > 0) parser.fail(`Unexpected end of template; expected '${ends.join("' or '")}'`)
  return body
}

/** The body of a tag up to its end, which is read as well; gives the word that ended it. */
function block(parser: ExpressionParser, ends: readonly string[]): { body: Statement[]; end: string } {
  // A colon may end the tag, as in Python.
  parser.skip(':')
  parser.expect('block_end')
  const body = statements(parser, ends)
  return { body, end: parser.next().value }
}

function statement(parser: ExpressionParser, ends: readonly string[]): Statement {
  const tag = parser.next().value
  const close = <S extends Statement>(node: S): S => {
    parser.expect('block_end')
    return node
  }
  switch (tag) {
    case 'for':
      return close(forLoop(parser))
    case 'if':
      return close(condition(parser))
    case 'set':
      return close(assignment(parser))
    case 'macro': {
      const name = nameTarget(parser)
      const of = signature(parser)
      return close({ kind: 'macro', name, signature: of, body: block(parser, ['endmacro']).body })
    }
    case 'call': {
      const of = parser.operator('(') ? signature(parser) : { names: [], defaults: [] }
      const call = parser.expression()
      if (call.kind !== 'call') parser.fail('expected call')
      return close({ kind: 'call_block', call, signature: of, body: block(parser, ['endcall']).body })
    }
    case 'filter': {
      const filters = parser.filters(true)
      return close({ kind: 'filter_block', filters, body: block(parser, ['endfilter']).body })
    }
    case 'with':
      return close(withBlock(parser))
    case 'generation':
      return close({ kind: 'generation', body: block(parser, ['endgeneration']).body })
    case 'break':
    case 'continue':
      return close({ kind: tag })
    case 'print':
      return close({ kind: 'print', value: parser.tuple() })
    case 'include':
    case 'import':
    case 'from':
    case 'extends':
    case 'block':
    case 'autoescape':
      return parser.fail(`the tag '${tag}' is not supported`)
  }
  const expected = ends.length === 0 ? '' : `; the innermost open tag ends with '${ends.join("' or '")}'`
  return parser.fail(`Encountered unknown tag '${tag}'${expected}`)
}

function forLoop(parser: ExpressionParser): Statement {
  const target = targets(parser, ['in'])
  parser.expect('name', 'in')
  const over = parser.tuple({ choice: false, ends: ['recursive'] })
  const test = parser.skip('if') ? parser.expression() : null
  const recursive = parser.skip('recursive')
  const { body, end } = block(parser, ['endfor', 'else'])
  const otherwise = end === 'else' ? block(parser, ['endfor']).body : []
  return { kind: 'for', target, over, test, recursive, body, otherwise }
}

function condition(parser: ExpressionParser): Statement {
  const branches: (readonly [Expression, readonly Statement[]])[] = []
  for (;;) {
    const test = parser.tuple({ choice: false })
    const { body, end } = block(parser, ['elif', 'else', 'endif'])
    branches.push([test, body])
    if (end === 'elif') continue
    return { kind: 'if', branches, otherwise: end === 'else' ? block(parser, ['endif']).body : [] }
  }
}

function assignment(parser: ExpressionParser): Statement {
  const target = targets(parser, [], true)
  if (parser.skip('=')) return { kind: 'set', target, value: parser.tuple() }
  const filters: FilterCall[] = parser.filters()
  return { kind: 'set_block', target, filters, body: block(parser, ['endset']).body }
}

function withBlock(parser: ExpressionParser): Statement {
  const values: [Target, Expression][] = []
  while (!parser.is('block_end')) {
    if (values.length > 0) parser.expect('operator', ',')
    const target = nameTarget(parser)
    parser.expect('operator', '=')
    values.push([{ kind: 'name', name: target }, parser.expression()])
  }
  return { kind: 'with', values, body: block(parser, ['endwith']).body }
}

function nameTarget(parser: ExpressionParser): string {
  const { value } = parser.expect('name')
  if (isConstantName(value)) parser.fail(`can't assign to '${value}'`)
  return value
}

/** What is assigned to: a name, names with commas, in parentheses or not, or, with `members`, a member of a namespace. */
function targets(parser: ExpressionParser, ends: readonly string[], members = false): Target {
  const items: Target[] = []
  let isTuple = false
  for (;;) {
    const stops = ['block_end', 'end'].includes(parser.now.kind) || parser.operator(')') || parser.operator('=')
    if (items.length > 0 && (stops || (parser.now.kind === 'name' && ends.includes(parser.now.value)))) break
    items.push(target(parser, members))
    if (!parser.skip(',')) break
    isTuple = true
  }
  return isTuple ? { kind: 'tuple', items } : items[0]
}

function target(parser: ExpressionParser, members: boolean): Target {
  if (parser.skip('(')) {
    const inner = parser.deeper(() => targets(parser, []))
    parser.expect('operator', ')')
    return inner
  }
  const name = nameTarget(parser)
  if (members && parser.skip('.')) return { kind: 'member', of: name, name: parser.expect('name').value }
  return { kind: 'name', name }
}

function signature(parser: ExpressionParser): Signature {
  parser.expect('operator', '(')
  const names: string[] = []
  const defaults: Expression[] = []
  while (!parser.operator(')')) {
    if (names.length > 0) parser.expect('operator', ',')
    const name = nameTarget(parser)
    if (names.includes(name)) parser.fail(`duplicate argument '${name}'`)
    names.push(name)
    if (parser.skip('=')) defaults.push(parser.expression())
    else if (defaults.length > 0) parser.fail('non-default argument follows default argument')
  }
  parser.next()
  return { names, defaults }
}
