// Templates to tokens, with trim_blocks and lstrip_blocks, as transformers sets them.
//
// Source: jinja2's lexer (3.1), whose rules this follows state by state.
import { BLANKS } from './blanks.ts'
import { TemplateError } from './budget.ts'

export type TokenKind =
  | 'text'
  | 'block_begin'
  | 'block_end'
  | 'print_begin'
  | 'print_end'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'end'

export interface Token {
  readonly kind: TokenKind
  /** Names, operators, the text of a string or of the template; numbers as they are written. */
  readonly value: string
  readonly line: number
}

/** Python's \s in the place of JavaScript's. */
const pattern = (source: string, flags: string): RegExp => new RegExp(source.replaceAll('\\s', `[${BLANKS}]`), flags)

const TAG = pattern('\\{%([-+]?)\\s*raw\\s*(?:-%\\}\\s*|%\\})|\\{([%{#])([-+]?)', 'gu')
const RAW_END = pattern('\\{%([-+]?)\\s*endraw\\s*(?:\\+%\\}|-%\\}\\s*|%\\}\\n?)', 'gu')
const COMMENT_END = pattern('(?:\\+#\\}|-#\\}\\s*|#\\}\\n?)', 'gu')
const BLOCK_END = pattern('(?:\\+%\\}|-%\\}\\s*|%\\}\\n?)', 'uy')
const PRINT_END = pattern('(?:-\\}\\}\\s*|\\}\\})', 'uy')
const SPACE = pattern('\\s+', 'uy')
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iuy
const INTEGER = /(?:0b(?:_?[0-1])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*)/iuy
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}_]*/uy
const STRING = /'[^'\\]*(?:\\[\s\S][^'\\]*)*'|"[^"\\]*(?:\\[\s\S][^"\\]*)*"/uy
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/uy
const BLANK = pattern('^\\s+$', 'u')
const ALL_BLANK = pattern('\\s', 'u')
const CLOSED_BY: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' }

/** Cuts a template into tokens; throws on what jinja2 refuses. */
export function tokenize(template: string): Token[] {
  const lines = template.split(/\r\n|\r|\n/)
  if (lines.length > 1 && lines[lines.length - 1] === '') lines.pop()
  return new Lexer(lines.join('\n')).run()
}

/** Length of a text without the blanks at its end; a regular expression would be quadratic. */
function trimmedLength(text: string): number {
  let length = text.length
  while (length > 0 && ALL_BLANK.test(text[length - 1])) length--
  return length
}

class Lexer {
  readonly #source: string
  readonly #tokens: Token[] = []
  #at = 0
  #line = 1
  /** Whether what has been read ends with a line. */
  #fresh = true

  constructor(source: string) {
    this.#source = source
  }

  run(): Token[] {
    while (this.#at < this.#source.length) this.#outside()
    this.#push('end', '')
    return this.#tokens
  }

  #push(kind: TokenKind, value: string): void {
    this.#tokens.push({ kind, value, line: this.#line })
  }

  #fail(message: string): never {
    throw new TemplateError(`${message} (line ${this.#line})`)
  }

  #find(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at
    return pattern.exec(this.#source)
  }

  #advance(text: string): void {
    this.#at += text.length
    for (const character of text) if (character === '\n') this.#line++
    if (text !== '') this.#fresh = text.endsWith('\n')
  }

  /** Text before a tag, without the blanks that the tag takes away. */
  #text(text: string, sign: string, prints: boolean): void {
    let kept = text
    if (sign === '-') kept = text.slice(0, trimmedLength(text))
    else if (sign !== '+' && !prints) {
      const begin = text.lastIndexOf('\n') + 1
      if ((begin > 0 || this.#fresh) && BLANK.test(text.slice(begin))) kept = text.slice(0, begin)
    }
    if (kept !== '') this.#push('text', kept)
  }

  #outside(): void {
    const tag = this.#find(TAG)
    const text = this.#source.slice(this.#at, tag?.index)
    if (tag === null) {
      this.#push('text', text)
      this.#advance(text)
      return
    }
    const [whole, rawSign, kind, sign] = tag
    this.#text(text, kind === undefined ? rawSign : sign, kind === '{')
    this.#advance(text)
    this.#advance(whole)
    if (kind === undefined) this.#raw()
    else if (kind === '#') this.#comment()
    else this.#inside(kind === '{')
  }

  #raw(): void {
    const end = this.#find(RAW_END)
    if (end === null) this.#fail('Missing end of raw directive')
    const text = this.#source.slice(this.#at, end.index)
    this.#text(text, end[1], false)
    this.#advance(text)
    this.#advance(end[0])
  }

  #comment(): void {
    const end = this.#find(COMMENT_END)
    if (end === null) this.#fail('Missing end of comment tag')
    this.#advance(this.#source.slice(this.#at, end.index))
    this.#advance(end[0])
  }

  #inside(prints: boolean): void {
    this.#push(prints ? 'print_begin' : 'block_begin', '')
    const open: string[] = []
    while (this.#at < this.#source.length) {
      const end = this.#find(prints ? PRINT_END : BLOCK_END)
      if (end !== null && open.length === 0) {
        this.#push(prints ? 'print_end' : 'block_end', '')
        this.#advance(end[0])
        return
      }
      this.#advance(this.#one(open))
    }
    this.#fail(`unexpected end of template, expected 'end of ${prints ? 'print statement' : 'statement block'}'`)
  }

  /** A token of an expression; gives its source. */
  #one(open: string[]): string {
    const space = this.#find(SPACE)
    if (space !== null) return space[0]
    for (const [kind, pattern] of [
      ['float', FLOAT],
      ['integer', INTEGER],
      ['name', NAME],
    ] as const) {
      const found = this.#find(pattern)
      if (found === null) continue
      this.#push(kind, kind === 'name' ? found[0] : found[0].replaceAll('_', ''))
      return found[0]
    }
    const string = this.#find(STRING)
    if (string !== null) {
      this.#push('string', this.#unescape(string[0].slice(1, -1)))
      return string[0]
    }
    const operator = this.#find(OPERATOR)?.[0]
    if (operator === undefined) this.#fail(`unexpected char ${JSON.stringify(this.#source[this.#at])}`)
    if (operator in CLOSED_BY) open.push(CLOSED_BY[operator])
    else if (')]}'.includes(operator)) {
      const expected = open.pop()
      if (expected === undefined) this.#fail(`unexpected '${operator}'`)
      if (expected !== operator) this.#fail(`unexpected '${operator}', expected '${expected}'`)
    }
    this.#push('operator', operator)
    return operator
  }

  /** Python's codec `unicode-escape`: what it does not know stays as it is. */
  #unescape(text: string): string {
    return text.replace(
      /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/gu,
      (whole, x, u, wide, octal, one) => {
        if (x ?? u ?? wide) {
          const code = Number.parseInt(x ?? u ?? wide, 16)
          if (code > 0x10ffff) this.#fail('illegal Unicode character')
          return String.fromCodePoint(code)
        }
        if (octal) return String.fromCodePoint(Number.parseInt(octal, 8))
        if ('xuU'.includes(one)) this.#fail(`truncated \\${one} escape`)
        if (one === 'N') this.#fail('the escape \\N is not supported')
        return ESCAPES[one] ?? whole
      },
    )
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}
