// Parses the live header of a WGSL kernel or part: shapes, scalars, grid, split, costs. Grammar: CONTRIBUTING, "A kernel".

const DTYPES = ['f32', 'f16', 'bf16', 'i8', 'u32'] as const
const SCALARS = ['f32', 'i32', 'u32'] as const
const FACTS = ['uses', 'scalar', 'dispatch', 'split', 'flops', 'bytes', 'source'] as const

/** A letter, a whole number, or a letter divided by a whole number without a rest. */
export type Dimension = string | number | { readonly letter: string; readonly by: number }

export interface TensorSpec {
  readonly name: string
  readonly shape: readonly Dimension[]
  readonly dtype: (typeof DTYPES)[number]
  /** Element type of the binding where the shader wants another than f32 or u32, such as vec4u. */
  readonly as?: string
  readonly role: 'input' | 'output' | 'in place'
}

/** A tensor line of a kernel: `storages` are the types it may be stored in, one variant of the kernel each. */
export interface TensorLine extends TensorSpec {
  readonly storages: readonly string[]
}

export interface Scalar {
  readonly name: string
  readonly type: (typeof SCALARS)[number]
}

export interface Header {
  readonly sentence: string
  readonly tensors: readonly TensorLine[]
  /** Shape letters in order of first appearance. */
  readonly letters: readonly string[]
  readonly scalars: readonly Scalar[]
  /** Parts that the kernel uses, beside the one that its storage type implies. */
  readonly uses: readonly string[]
  readonly dispatch: readonly string[]
  readonly split: { readonly expression: string; readonly by: number }
  readonly flops: string
  readonly bytes: string
  readonly source: string
}

/** How a storage type lies in memory, from the header of its part. */
export interface StorageType {
  /** `stored`, the values, and where the type has scales `stored_scale`; of a matrix [R, D]. */
  readonly tensors: readonly TensorSpec[]
  /** Bytes of one value, its share of the scales included: an expression of numbers. */
  readonly bytes: string
}

type Fail = (reason: string) => never

const failIn =
  (file: string): Fail =>
  (reason) => {
    throw new Error(`${file}: ${reason}`)
  }

/** The comment block at the top of a shader. */
export function headerLines(text: string): string[] {
  const lines = text.split('\n')
  return lines.slice(
    0,
    lines.findIndex((line) => !line.startsWith('//')),
  )
}

/** Two spaces end what is read: what follows is a remark. */
const beforeRemark = (text: string): string => text.split(/\s{2,}/)[0]!

/** Tensor and fact lines of the comment block. */
function readLines(text: string, fail: Fail) {
  const lines = headerLines(text).map((line) => line.slice(2).replace(/^ /, '').trimEnd())
  if (!lines[0]?.endsWith('.')) fail('the header must begin with a sentence that ends with a full stop')
  const tensors: TensorLine[] = []
  const facts = Object.fromEntries(FACTS.map((fact) => [fact, [] as string[]])) as Record<string, string[]>
  for (const line of lines.slice(1)) {
    const shape = /^([a-z]\w*)\s+\[([^\]]*)\]\s*(.*)$/.exec(line)
    if (shape) {
      tensors.push(parseTensor(shape[1]!, shape[2]!, shape[3]!, fail))
      continue
    }
    const fact = /^([a-z]+)\s{2,}(.+)$/.exec(line)
    if (fact && fact[1]! in facts) facts[fact[1]!]!.push(fact[2]!)
  }
  const one = (key: (typeof FACTS)[number]): string => {
    if (facts[key]!.length !== 1) fail(`the header needs exactly one ${key} line, found ${facts[key]!.length}`)
    return key === 'source' ? facts[key]![0]! : beforeRemark(facts[key]![0]!)
  }
  return { sentence: lines[0]!, tensors, facts, one }
}

/** Reads the header of a kernel; throws with the file name and the reason when it is none. */
export function parseHeader(file: string, text: string): Header {
  const fail = failIn(file)
  const { sentence, tensors, facts, one } = readLines(text, fail)
  if (tensors.length === 0) fail('the header names no tensor (name [A, B])')
  if (!tensors.some((tensor) => tensor.role !== 'input')) fail('no tensor is marked output or in place')

  const letters: string[] = []
  for (const { name, shape } of tensors) {
    for (const size of shape) {
      if (typeof size === 'string' && !letters.includes(size)) letters.push(size)
      if (typeof size === 'object' && !letters.includes(size.letter))
        fail(`${name}: ${size.letter} / ${size.by} needs a tensor before it that has ${size.letter}`)
    }
  }
  const split = /^(.+?)(?: by (\d+))?$/.exec(one('split'))!
  return {
    sentence,
    tensors,
    letters,
    scalars: facts.scalar!.map((line) => {
      const [name, type] = beforeRemark(line).split(' ')
      return { name: name!, type: SCALARS.find((candidate) => candidate === type) ?? 'f32' }
    }),
    uses: facts.uses!.flatMap((line) => beforeRemark(line).split(' ')),
    dispatch: splitTopLevel(one('dispatch')),
    split: { expression: split[1]!, by: Number(split[2] ?? 1) },
    flops: one('flops'),
    bytes: one('bytes'),
    source: one('source'),
  }
}

/** Reads the header of the part that widens a storage type. */
export function parseStorage(file: string, text: string): StorageType {
  const fail = failIn(file)
  const { tensors, one } = readLines(text, fail)
  const names = tensors.map(({ name }) => name).join()
  if (names !== 'stored' && names !== 'stored,stored_scale')
    fail(`a storage type is made of "stored" and maybe "stored_scale", found ${names || 'no tensor'}`)
  if (tensors[0]!.shape.join() !== 'R,D') fail('stored must be [R, D]')
  return { tensors, bytes: one('bytes') }
}

function parseTensor(name: string, dims: string, rest: string, fail: Fail): TensorLine {
  const shape = dims.split(',').map((part): Dimension => {
    const letter = part.trim()
    if (/^[A-Z]$/.test(letter)) return letter
    if (/^[1-9]\d*$/.test(letter)) return Number(letter)
    const quotient = /^([A-Z]) \/ ([1-9]\d*)$/.exec(letter)
    if (quotient) return { letter: quotient[1]!, by: Number(quotient[2]) }
    return fail(`${name}: a dimension is one capital letter, a whole number, or a letter / a number, found "${letter}"`)
  })
  const [types = '', ...remarks] = rest.split(/\s{2,}/)
  const words = types.split(' ')
  const as = words[1] === 'as' ? words.splice(1, 2)[1]! : undefined
  const typed = words.every((word) => /^[a-z]+\d+(_\d+)?$/.test(word))
  const storages = typed ? words : []
  if (storages.length === 1 && !DTYPES.some((dtype) => dtype === storages[0]))
    fail(`${name}: a type is one of ${DTYPES.join(', ')}, found "${storages[0]}"`)
  const role = [...(typed ? [] : [types]), ...remarks].join(' ')
  return {
    name,
    shape,
    dtype: DTYPES.find((dtype) => dtype === storages[0]) ?? 'f32',
    ...(as && { as }),
    storages: storages.length > 1 ? storages : [],
    role: role.startsWith('output') ? 'output' : role.startsWith('in place') ? 'in place' : 'input',
  }
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
  constants: Readonly<Record<string, number | string>>,
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
