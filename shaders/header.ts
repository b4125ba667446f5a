// Parses the live header of a WGSL kernel: shapes, scalars, grid, split, costs. Grammar: CONTRIBUTING, "A kernel".

export interface TensorSpec {
  readonly name: string
  /** Letters, or literal integers. */
  readonly shape: readonly (string | number)[]
  readonly dtype: 'f32' | 'f16' | 'bf16' | 'u32'
  readonly role: 'input' | 'output' | 'in place'
}

export interface Header {
  readonly sentence: string
  readonly tensors: readonly TensorSpec[]
  /** Shape letters in order of first appearance. */
  readonly letters: readonly string[]
  readonly scalars: readonly string[]
  /** Optional features of WebGPU that the shader needs. */
  readonly needs: readonly string[]
  readonly dispatch: readonly string[]
  readonly split: { readonly expression: string; readonly by: number }
  readonly flops: string
  readonly bytes: string
  readonly source: string
}

const DTYPES = ['f32', 'f16', 'bf16', 'u32'] as const
const FACTS = ['scalar', 'needs', 'dispatch', 'split', 'flops', 'bytes', 'source'] as const

/** Reads the comment block at the top of a shader; throws with the file name and the reason when it is not a header. */
export function parseHeader(file: string, text: string): Header {
  const fail = (reason: string): never => {
    throw new Error(`${file}: ${reason}`)
  }
  const lines: string[] = []
  for (const line of text.split('\n')) {
    if (!line.startsWith('//')) break
    lines.push(line.slice(2).replace(/^ /, '').trimEnd())
  }
  if (!lines[0]?.endsWith('.')) fail('the header must begin with a sentence that ends with a full stop')

  const tensors: TensorSpec[] = []
  const facts: Record<(typeof FACTS)[number], string[]> = {
    scalar: [],
    needs: [],
    dispatch: [],
    split: [],
    flops: [],
    bytes: [],
    source: [],
  }
  for (const line of lines.slice(1)) {
    const shape = /^([a-z]\w*)\s+\[([^\]]*)\]\s*(.*)$/.exec(line)
    if (shape) {
      tensors.push(parseTensor(shape[1]!, shape[2]!, shape[3]!, fail))
      continue
    }
    const fact = /^([a-z]+)\s{2,}(.+)$/.exec(line)
    const key = FACTS.find((name) => name === fact?.[1])
    if (key) facts[key].push(fact![2]!)
  }
  const one = (key: (typeof FACTS)[number]): string => {
    if (facts[key].length !== 1) fail(`the header needs exactly one ${key} line, found ${facts[key].length}`)
    // Two spaces end an expression: what follows is a remark.
    return key === 'source' ? facts[key][0]! : facts[key][0]!.split(/\s{2,}/)[0]!
  }
  if (tensors.length === 0) fail('the header names no tensor (name [A, B])')
  if (!tensors.some((tensor) => tensor.role !== 'input')) fail('no tensor is marked output or in place')

  const letters: string[] = []
  for (const { shape } of tensors)
    for (const letter of shape) if (typeof letter === 'string' && !letters.includes(letter)) letters.push(letter)
  if (facts.needs.length > 1) fail(`the header has at most one needs line, found ${facts.needs.length}`)
  const needs = facts.needs.flatMap((line) => line.split(/\s{2,}/)[0]!.split(/[\s,]+/))
  const odd = needs.find((feature) => !/^[a-z][a-z0-9-]*$/.test(feature))
  if (odd !== undefined) fail(`needs lists features of WebGPU, as in shader-f16, subgroups; found "${odd}"`)
  const split = /^(.+?)(?: by (\d+))?$/.exec(one('split'))!
  return {
    sentence: lines[0]!,
    tensors,
    letters,
    scalars: facts.scalar.map((line) => line.split(/\s+/)[0]!),
    needs,
    dispatch: splitTopLevel(one('dispatch')),
    split: { expression: split[1]!, by: Number(split[2] ?? 1) },
    flops: one('flops'),
    bytes: one('bytes'),
    source: one('source'),
  }
}

function parseTensor(name: string, dims: string, rest: string, fail: (reason: string) => never): TensorSpec {
  const shape = dims.split(',').map((part) => {
    const letter = part.trim()
    if (/^[A-Z]$/.test(letter)) return letter
    if (/^[1-9]\d*$/.test(letter)) return Number(letter)
    return fail(`${name}: a dimension is one capital letter or a whole number, found "${letter}"`)
  })
  const words = rest.split(/[\s,]+/)
  const dtype = DTYPES.find((candidate) => candidate === words[0]) ?? 'f32'
  if (words[0] === dtype) words.shift()
  const role = words[0] === 'output' ? 'output' : words[0] === 'in' && words[1] === 'place' ? 'in place' : 'input'
  return { name, shape, dtype, role }
}

/** Splits at the commas that stand outside parentheses. */
function splitTopLevel(text: string): string[] {
  const parts = ['']
  let depth = 0
  for (const char of text) {
    if (char === '(') depth++
    if (char === ')') depth--
    if (char === ',' && depth === 0) parts.push('')
    else parts[parts.length - 1] += char
  }
  return parts.map((part) => part.trim())
}

/**
 * Turns an expression of the header into TypeScript over `s`, the record of shape letters and scalars. Knows + - * / ( ),
 * ceil, min, max, integers, and the constants of the file.
 */
export function compileExpression(
  file: string,
  expression: string,
  names: readonly string[],
  constants: Readonly<Record<string, number>>,
): string {
  const tokens = expression.match(/[A-Za-z_]\w*|\d+(?:\.\d+)?|[-+*/(),]|\S/g) ?? []
  return tokens
    .map((token) => {
      if (/^[-+*/(),]$|^\d/.test(token)) return token
      if (token === 'ceil' || token === 'min' || token === 'max') return `Math.${token}`
      if (names.includes(token)) return `s.${token}`
      if (Object.hasOwn(constants, token)) return String(constants[token])
      throw new Error(
        `${file}: "${expression}" uses "${token}", which is no shape letter, scalar or constant of the file`,
      )
    })
    .join(' ')
}
