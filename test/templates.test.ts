// Chat templates against Python's jinja2 as transformers sets it up, and the bounds that a template runs under.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { TemplateError } from '../src/text/jinja/budget.ts'
import { compile, type Data } from '../src/text/jinja/template.ts'

/** What Python rendered, or the error that it raised. */
type Expected = string | { readonly error: string }

interface Fixture {
  readonly now: string
  readonly variables: Readonly<Record<string, Data>>
  readonly families: Readonly<Record<string, string>>
  readonly conversations: readonly Data[]
  readonly cases: readonly (readonly [family: string, conversation: number, prompt: boolean, expected: Expected])[]
  readonly drawn: readonly (readonly [template: string, expected: Expected])[]
}

const fixture: Fixture = JSON.parse(
  gunzipSync(readFileSync(new URL('fixtures/templates.json.gz', import.meta.url))).toString(),
)
const NOW = new Date(fixture.now)

function render(template: string, variables: Readonly<Record<string, Data>> = {}): string {
  return compile(template).render(variables, NOW)
}

/** Fails where the template gives something else than Python; true where it is refused by name. */
function agrees(template: string, variables: Readonly<Record<string, Data>>, expected: Expected): boolean {
  let text: string
  try {
    text = render(template, variables)
  } catch (error) {
    assert.instance(error, TemplateError, `${template}: ${error}`)
    if (typeof expected !== 'string') return false
    assert.match((error as Error).message, /not supported$|address of its memory$/, JSON.stringify(template))
    return true
  }
  assert.equal(text, expected, JSON.stringify(template))
  return false
}

test('templates of families render every conversation as Python does, or fail where it fails', () => {
  assert.ok(fixture.cases.length > 300)
  for (const [family, conversation, prompt, expected] of fixture.cases) {
    const variables = {
      messages: fixture.conversations[conversation],
      tools: null,
      documents: null,
      add_generation_prompt: prompt,
      bos_token: '<s>',
      eos_token: '</s>',
      pad_token: '<pad>',
      unk_token: '<unk>',
    }
    assert.not(agrees(fixture.families[family], variables, expected), `${family} is refused`)
  }
})

test('drawn expressions and statements render as in Python; few are refused, and those by name', () => {
  assert.ok(fixture.drawn.length > 2000)
  const refused = fixture.drawn.filter(([template, expected]) => agrees(template, fixture.variables, expected))
  assert.ok(refused.length < fixture.drawn.length / 100, String(refused.length))
})

test('known templates and their texts, each by hand', () => {
  for (const [template, expected] of [
    ["{{ '\\n x'.lstrip('\\n') }}|{{ 'aab'.strip('a') }}|{{ ' y '.rstrip() }}", ' x|b| y'],
    ['{{ true }} {{ none }} {{ [1, none, 2.0] }} {{ {"a": "b\'c"} }}', "True None [1, None, 2.0] {'a': \"b'c\"}"],
    ["{{ ('a',) }}{{ '%s-%s' % ('a', 1) }}{{ '{}'.format(1) }}{{ 'a\\nb'.splitlines() }}", "('a',)a-11['a', 'b']"],
    ["{{ '<a>' | e }}", '&lt;a&gt;'],
    ["{{ strftime_now('%A %j %y %e %d %B %Y') }}", 'Thursday 064 26  5 05 March 2026'],
    ['{{ "\\U0001f600"|length }}{{ "\\U0001f600x"[0] }}', '1\u{1f600}'],
    ['{% for x in [1, 2] %}{% set y = x %}{% endfor %}{{ y }}', ''],
    ['{% if true %}\n  a\n  {%- endif %}\nb\n', '  ab'],
    ['{% generation %}x{% endgeneration %}', 'x'],
  ] as const)
    assert.is(render(template), expected, template)
})

test('what is not there is an error where Python has one, and by its name', () => {
  for (const [template, message] of [
    ['{{ a.b }}', "'a' is undefined"],
    ['{{ m.b.c }}', "'dict object' has no attribute 'b'"],
    ["{{ 'a' + 1 }}", 'can only concatenate str (not "int") to str'],
    ['{{ 1 | nope }}', "No filter named 'nope'."],
    ['{{ m.update(m) }}', "access to attribute 'update' of 'dict' object is unsafe."],
    ["{{ raise_exception('no') }}", 'no'],
    ['{% include "x" %}', "the tag 'include' is not supported (line 1)"],
    ['a\n{{ 1 ', "unexpected end of template, expected 'end of print statement' (line 2)"],
    ['{{ xs | random }}', "the filter 'random' is not supported"],
    ["{{ 'a'.encode() }}", "'encode' of a str is not supported"],
    ['{{ m.items }}', 'a function is printed; Python would print an address of its memory'],
  ] as const)
    assert.throws(
      () => render(template, { m: { a: 1 }, xs: [1] }),
      (error: Error) => error instanceof TemplateError && error.message === message,
      template,
    )
})

test('no template takes more than its bounds', () => {
  const deep = 5000
  for (const [template, message] of [
    ['{% for i in range(1000000000) %}x{% endfor %}', /Range too big/],
    [`${'{% for a in range(9999) %}'.repeat(4)}x${'{% endfor %}'.repeat(4)}`, /more than \d+ steps/],
    [
      '{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}',
      /more than \d+/,
    ],
    [
      "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      /more than \d+/,
    ],
    ["{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", /more than \d+/],
    ["{{ 'x' * 1000000000 }}", /more than \d+ characters/],
    ["{{ 'x'.ljust(1000000000) }}", /more than \d+ characters/],
    ["{{ '%999999999d' % 1 }}", /more than \d+ characters/],
    ["{{ '{:999999999}'.format(1) }}", /more than \d+ characters/],
    ["{{ ('ab' * 9999).replace('a', 'x' * 9999) }}", /more than \d+ characters/],
    ['{{ 10 ** 1000000 }}', /above \d+ bits/],
    ['{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', /more than 100 calls/],
    [`{{ ${'('.repeat(deep)}1${')'.repeat(deep)} }}`, /nests more than 200 deep/],
    [`{{ ${'not '.repeat(deep)}1 }}`, /nests more than 200 deep/],
    [`${'{% if 1 %}'.repeat(deep)}${'{% endif %}'.repeat(deep)}`, /nests more than 200 deep/],
  ] as const)
    assert.throws(
      () => render(template),
      (error: Error) => error instanceof TemplateError && message.test(error.message),
      template,
    )
})

test.run()
