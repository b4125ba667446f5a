// The tests of jinja2 3.1: what stands behind "is".
import { arithmetic, contains, holds } from './arithmetic.ts'
import { type Budget, TemplateError } from './budget.ts'
import { textOf } from './show.ts'
import { TEXT_METHODS, TextArguments } from './text_methods.ts'
import {
  Callable,
  Dict,
  isEqual,
  isNumber,
  lengthOf,
  Markup,
  Members,
  Stream,
  typeName,
  Undefined,
  type Value,
} from './values.ts'

interface Context {
  readonly budget: Budget
  readonly filters: ReadonlySet<string>
  readonly tests: ReadonlySet<string>
}

type Test = (of: Value, args: readonly Value[], context: Context) => boolean

/** How many arguments a test has beside its value. */
const withArguments = (count: number, work: Test): Test => {
  return (of, args, context) => {
    if (args.length !== count)
      throw new TemplateError(`the test takes ${count} argument${count === 1 ? '' : 's'}, got ${args.length}`)
    return work(of, args, context)
  }
}
const plain = (work: (of: Value, context: Context) => boolean): Test =>
  withArguments(0, (of, _, context) => work(of, context))
const comparing = (operator: string): Test =>
  withArguments(1, (of, [other], { budget }) => holds(operator, of, other, budget))
const remainder = (of: Value, by: bigint, budget: Budget): Value => arithmetic('%', of, by, budget)
const textTest = (name: 'islower' | 'isupper'): Test =>
  plain(
    (of, { budget }) =>
      TEXT_METHODS[name](textOf(of, budget), new TextArguments(name, [], new Map()), budget) as boolean,
  )

/** Strings and numbers with no identity of their own are refused. */
const same = withArguments(1, (of, [other]) => {
  const single = [of, other].some((value) => value === null || typeof value === 'boolean')
  if (single) return of === other
  if (of instanceof Object && other instanceof Object) return of === other
  if (typeName(of) !== typeName(other)) return false
  throw new TemplateError("the test 'sameas' of texts and numbers is not supported")
})

const isIterable = (of: Value): boolean => lengthOf(of) !== null || of instanceof Stream

const equal = comparing('==')
const greater = comparing('>')
const less = comparing('<')

export const TESTS: Readonly<Record<string, Test>> = {
  boolean: plain((of) => typeof of === 'boolean'),
  callable: plain(
    (of) => of instanceof Callable || of instanceof Undefined || (of instanceof Members && of.call !== null),
  ),
  defined: plain((of) => !(of instanceof Undefined)),
  divisibleby: withArguments(1, (of, [by], { budget }) => isEqual(arithmetic('%', of, by, budget), 0n)),
  eq: equal,
  equalto: equal,
  '==': equal,
  escaped: plain((of) => of instanceof Markup),
  even: plain((of, { budget }) => isEqual(remainder(of, 2n, budget), 0n)),
  odd: plain((of, { budget }) => isEqual(remainder(of, 2n, budget), 1n)),
  false: plain((of) => of === false),
  true: plain((of) => of === true),
  filter: plain((of, { filters }) => typeof of === 'string' && filters.has(of)),
  test: plain((of, { tests }) => typeof of === 'string' && tests.has(of)),
  float: plain((of) => typeof of === 'number'),
  integer: plain((of) => typeof of === 'bigint'),
  number: plain((of) => isNumber(of)),
  ge: comparing('>='),
  '>=': comparing('>='),
  gt: greater,
  greaterthan: greater,
  '>': greater,
  le: comparing('<='),
  '<=': comparing('<='),
  lt: less,
  lessthan: less,
  '<': less,
  ne: comparing('!='),
  '!=': comparing('!='),
  in: withArguments(1, (of, [within], { budget }) => contains(within, of, budget)),
  iterable: plain(isIterable),
  lower: textTest('islower'),
  upper: textTest('isupper'),
  mapping: plain((of) => of instanceof Dict),
  none: plain((of) => of === null),
  sameas: same,
  sequence: plain((of) => lengthOf(of) !== null && !typeName(of).startsWith('dict_')),
  string: plain((of) => typeof of === 'string' || of instanceof Markup),
  undefined: plain((of) => of instanceof Undefined),
}
