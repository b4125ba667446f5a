// Python's regular expressions on names: the same answers as an engine that searches, what is refused, and work that is bounded.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parsePythonRegex } from '../src/llama/python_regex.ts'
import { random } from './random.ts'

const all = (pattern: string, name: string) => parsePythonRegex(pattern, 'test').matchesAll(name)
const start = (pattern: string, name: string) => parsePythonRegex(pattern, 'test').matchesStart(name)

test('random expressions match what the engine of this runtime matches', () => {
  const draw = random(1)
  const below = (n: number) => Math.floor(draw.next() * n)
  const pick = (list: readonly string[]) => list[below(list.length)]
  const make = (depth: number): string => {
    const atom = () =>
      depth === 0 || below(3) > 0
        ? pick(['a', 'b', '.', '[ab]', '[^a]', '\\w', '\\.', '1', '\\d'])
        : `(${make(depth - 1)})`
    const piece = () =>
      below(12) === 0
        ? pick(['^', '$', '\\b', '(?=a)', '(?!b)', '(?<=a)', '(?<!1)'])
        : atom() + pick(['', '', '', '*', '+', '?', '*?', '{2}', '{1,2}', '{0,}'])
    const sequence = () => Array.from({ length: 1 + below(3) }, piece).join('')
    return Array.from({ length: below(4) === 0 ? 2 : 1 }, sequence).join('|')
  }
  let matched = 0
  for (let i = 0; i < 3000; i++) {
    const pattern = make(2)
    const [whole, head] = [new RegExp(`^(?:${pattern})$`), new RegExp(`^(?:${pattern})`)]
    for (let j = 0; j < 5; j++) {
      const name = Array.from({ length: below(6) }, () => pick(['a', 'b', '.', '1'])).join('')
      // In the middle of an expression ^ and $ hold at the ends of the name for both.
      assert.is(all(pattern, name), whole.test(name), `${pattern} on ${JSON.stringify(name)}`)
      assert.is(start(pattern, name), head.test(name), `${pattern} at the start of ${JSON.stringify(name)}`)
      if (whole.test(name)) matched++
    }
  }
  assert.ok(matched > 500, String(matched))
})

test("what Python writes in its own way is read in Python's", () => {
  for (const [pattern, name, expected] of [
    ['(?P<n>q)_proj', 'q_proj', true],
    ['q_proj\\Z', 'q_proj', true],
    ['\\Aq_proj', 'q_proj', true],
    ['[]a]b', ']b', true],
    ['[^]a]b', 'cb', true],
    ['a{,2}', 'aa', true],
    ['a{,2}', 'aaa', false],
    ['a{}', 'a{}', true],
    ['a{1', 'a{1', true],
    ['a{x}', 'a{x}', true],
    ['[a-c\\d-]+', 'b5-', true],
    ['[\\w.]+', 'a.b', true],
    ['a{1000000000}', 'aa', false],
    ['(a?){1000000000}', 'aa', true],
    ['(a*)*b', 'aaab', true],
    ['', '', true],
    ['|a', 'a', true],
  ] as const)
    assert.is(all(pattern, name), expected, `${pattern} on ${name}`)
})

test('what has no counterpart, or is an error in Python, is refused with its place', () => {
  for (const [pattern, message] of [
    ['(q)\\1', /refers back/],
    ['a++', /possessive/],
    ['(?>a)', /kind that is not supported/],
    ['(?i)a', /kind that is not supported/],
    ['(?P=n)', /kind that is not supported/],
    ['(a', /\( without its \)/],
    ['a)', /\) too many \(at character 2\)/],
    ['[a', /\[ without its \]/],
    ['*a', /nothing to repeat/],
    ['a**', /two quantifiers/],
    ['^*', /repeats what matches a place/],
    ['a{2,1}', /from more to fewer/],
    ['[b-a]', /range that is none/],
    ['\\q', /escape \\q/],
    ['a\\', /ends with a backslash/],
    ['('.repeat(200), /more than 100 groups/],
    ['a'.repeat(5000), /5000 characters/],
  ] as const)
    assert.throws(
      () => parsePythonRegex(pattern, 'file: key'),
      (error: Error) => message.test(error.message) && error.message.startsWith('file: key: '),
      pattern,
    )
})

test('no expression takes longer than its budget', () => {
  const name = `model.layers.0.${'a'.repeat(60)}!`
  for (const pattern of [
    '(a+)+$',
    '.*(a+)+$',
    '(.*)*(.*)*(.*)*x',
    '((a|a)*)*b',
    '(((((.*)*)*)*)*)*x',
    '(a?){50}a{50}b',
  ])
    assert.not(all(pattern, name), pattern)
  const long = Array.from({ length: 400 }, () => '(.*)*').join('')
  assert.throws(
    () => parsePythonRegex(`${long}x`, 'file: target_modules', { left: 1e6 }).matchesAll('a'.repeat(1000)),
    /file: target_modules: matching the regular expression takes too long; give the names of the modules as a list/,
  )
})

test.run()
