// Makes the kernels of one shader: the text with its bindings and parts, once for each storage type that its header lists.
import { WgslReflect } from 'wgsl_reflect/wgsl_reflect.module.js'
import {
  type Dimension,
  type Header,
  headerLines,
  parseHeader,
  parseStorage,
  type StorageType,
  type TensorLine,
  type TensorSpec,
} from './header.ts'

/** WebGPU guarantees this many storage buffers to a compute stage. */
const MAX_STORAGE_BUFFERS = 8

export interface Kernel {
  /** That of the shader, and the storage type behind it unless that is f32. */
  readonly name: string
  /** Name of the shader. */
  readonly algorithm: string
  /** Which tensor is stored in which of the types that the header lists. */
  readonly stored: { readonly tensor: string; readonly storage: string } | null
  readonly header: Header
  /** The tensors of `header` as they are bound: a stored one is one or two. */
  readonly tensors: readonly TensorSpec[]
  /** Numbers that expressions of the header may use. */
  readonly constants: Readonly<Record<string, number | string>>
  /** Threads of a workgroup. */
  readonly threads: number
  /** The whole shader. */
  readonly text: string
}

/** Gives the text of shaders/parts/NAME.wgsl, or null where there is none. */
export type Parts = (name: string) => string | null

/** Makes all kernels of a shader; throws with the file name where header and text disagree. */
export function makeKernels(file: string, text: string, parts: Parts): Kernel[] {
  const header = parseHeader(file, text)
  const fail = (reason: string): never => {
    throw new Error(`${file}: ${reason}`)
  }
  const algorithm = file.replace(/^.*\//, '').replace(/\.wgsl$/, '')
  const part = (name: string): string =>
    parts(name) ?? fail(`there is no shaders/parts/${name}.wgsl, which the header asks for`)
  const lines = text.split('\n').slice(headerLines(text).length)
  const enabled = lines.filter((line) => line.startsWith('enable '))
  const body = lines.filter((line) => !line.startsWith('enable ')).join('\n')
  if (/@binding|^struct Params\b/m.test(body))
    fail('bindings and Params are made from the header; the text must hold none')

  const lists = header.tensors.filter(({ storages }) => storages.length > 0)
  if (lists.length > 1) fail(`one tensor may list storage types, found ${lists.map(({ name }) => name).join(', ')}`)
  const [line] = lists
  for (const { name } of header.tensors)
    if (!new RegExp(`\\b${name}\\b`).test(body) && name !== line?.name) fail(`the text never uses ${name}`)
  const makeOne = (storage: string | null): Kernel => {
    const widen = storage && `widen_${storage}`
    const type = widen ? parseStorage(`shaders/parts/${widen}.wgsl`, part(widen)) : null
    const bound = header.tensors.flatMap((tensor) => (tensor === line ? storedTensors(tensor, type!) : [named(tensor)]))
    if (bound.length > MAX_STORAGE_BUFFERS)
      fail(`${bound.length} tensors; WebGPU guarantees ${MAX_STORAGE_BUFFERS} storage buffers`)
    const name = storage === null || storage === 'f32' ? algorithm : `${algorithm}_${storage}`
    const narrow = storage !== null && line!.role !== 'input' ? [`narrow_${storage}`] : []
    const used = [...header.uses, ...(widen ? [widen] : []), ...narrow]
    const whole = [
      `// Made from shaders/${[`${algorithm}.wgsl`, ...used.map((one) => `parts/${one}.wgsl`)].join(', ')}; not to be edited.`,
      ...headerLines(text),
      '',
      // WGSL wants these before everything else.
      ...enabled,
      ...bindings(header, bound),
      ...(line ? rowLength(line) : []),
      body.trim(),
      ...used.map((one) => `\n${part(one).trim()}`),
      '',
    ].join('\n')
    const reflect = new WgslReflect(whole)
    if (!reflect.entry.compute.some((entry) => entry.name === 'main')) fail('the entry point must be called main')
    const constants = constantsOf(whole)
    const size = /@workgroup_size\(([^)]*)\)/
      .exec(whole)![1]!
      .split(',')
      .map((term) => term.trim())
    return {
      name,
      algorithm,
      stored: storage === null ? null : { tensor: line!.name, storage },
      header,
      tensors: bound.map(({ tensor }) => tensor),
      constants: type ? { ...constants, STORED: `(${type.bytes})` } : constants,
      threads: size.reduce((product, term) => product * Number(constants[term] ?? term), 1),
      text: whole,
    }
  }
  return (line?.storages ?? [null]).map(makeOne)
}

/** A tensor and the name of its variable. */
interface Bound {
  readonly tensor: TensorSpec
  readonly variable: string
}

const named = ({ storages: _, ...tensor }: TensorLine): Bound => ({ tensor, variable: tensor.name })

/** The tensors of a storage type, named and shaped as the kernel's own. */
function storedTensors({ name, shape, role }: TensorLine, type: StorageType): Bound[] {
  const [rows, length] = shape as readonly string[]
  const letter = (own: Dimension): Dimension =>
    typeof own === 'object' ? { ...own, letter: length! } : own === 'R' ? rows! : length!
  return type.tensors.map((tensor) => ({
    tensor: { ...tensor, name: tensor.name.replace('stored', name), shape: tensor.shape.map(letter), role },
    variable: tensor.name,
  }))
}

/** The bindings in the order of the header, and last the parameters: letters in order of first appearance, then scalars. */
function bindings({ letters, scalars }: Header, bound: readonly Bound[]): string[] {
  const element = ({ dtype, as }: TensorSpec): string => as ?? (dtype === 'f32' ? 'f32' : 'u32')
  const member = (name: string, type: string): string => `  ${name}: ${type},`
  return [
    'struct Params {',
    ...letters.map((letter) => member(letter, 'u32')),
    ...scalars.map(({ name, type }) => member(name, type)),
    '}',
    '',
    ...bound.map(({ tensor, variable }, index) => {
      const access = tensor.role === 'input' ? 'read' : 'read_write'
      return `@group(0) @binding(${index}) var<storage, ${access}> ${variable}: array<${element(tensor)}>;`
    }),
    `@group(0) @binding(${bound.length}) var<uniform> params: Params;`,
    '',
  ]
}

/** What the part of a storage type needs to know of the matrix. */
function rowLength({ shape }: TensorLine): string[] {
  return [
    '// Values in a row of the stored matrix.',
    'fn row_length() -> u32 {',
    `  return params.${shape[1]};`,
    '}',
    '',
  ]
}

/** The `const` and `override` numbers of a shader. */
function constantsOf(text: string): Record<string, number> {
  const constants: Record<string, number> = {}
  for (const match of text.matchAll(/^(?:const|override)\s+([A-Z]\w*)(?:\s*:\s*\w+)?\s*=\s*(\d+)[ui]?\s*;/gm))
    constants[match[1]!] = Number(match[2])
  return constants
}
