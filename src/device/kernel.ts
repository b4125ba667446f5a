// What a kernel is to the host, and the check of one call: names, dtypes, and shape letters unified as in einsum.
import type { DType, Tensor } from './tensor.ts'

/** A letter, a literal size, or a letter divided by a number that divides it. */
export type Dimension = string | number | { readonly letter: string; readonly by: number }

export interface TensorSpec {
  readonly name: string
  readonly shape: readonly Dimension[]
  readonly dtype: DType
  readonly role: 'input' | 'output' | 'in place'
}

/** Values of the shape letters and scalars of one call. */
export type Sizes = Readonly<Record<string, number>>

/** One kernel as its shader's header describes it; made by shaders/generate.ts. */
export interface KernelSpec {
  readonly name: string
  readonly tensors: readonly TensorSpec[]
  readonly letters: readonly string[]
  readonly scalars: readonly { readonly name: string; readonly type: string }[]
  /** Workgroups in x, y, z. */
  readonly dispatch: (sizes: Sizes) => readonly number[]
  /** Threads of a workgroup. */
  readonly threads: number
  /** Length of the range that CPU threads divide, in pieces of `splitBy`. */
  readonly split: (sizes: Sizes) => number
  readonly splitBy: number
  /** Floating-point operations, a multiply and an add counted as two. */
  readonly flops: (sizes: Sizes) => number
  /** Compulsory memory traffic in bytes. */
  readonly bytes: (sizes: Sizes) => number
  readonly wgsl: string
}

const form = (spec: TensorSpec, sizes: Record<string, number>): string => {
  const known = (d: string): string => (sizes[d] === undefined ? d : `${d} = ${sizes[d]}`)
  const word = (d: Dimension): string | number =>
    typeof d === 'object' ? `${known(d.letter)} / ${d.by}` : typeof d === 'string' ? known(d) : d
  return `[${spec.shape.map(word).join(', ')}]`
}

/** What a dimension must be, or undefined for a letter that no tensor before has had. */
const sizeOf = (d: Dimension, sizes: Record<string, number>): number | undefined =>
  typeof d === 'number' ? d : typeof d === 'string' ? sizes[d] : sizes[d.letter]! / d.by

/**
 * Checks the tensors and scalars of one call and returns the value of every letter and scalar. Throws with the kernel's and
 * the tensor's name, what must hold and what was found.
 */
export function unify(
  spec: KernelSpec,
  tensors: Readonly<Record<string, Tensor>>,
  scalars: Readonly<Record<string, number>>,
): Sizes {
  const sizes: Record<string, number> = {}
  for (const wanted of spec.tensors) {
    const tensor = tensors[wanted.name]
    if (!tensor) throw new Error(`${spec.name}: tensor ${wanted.name} is missing`)
    if (tensor.destroyed) throw new Error(`${spec.name}: ${wanted.name} (${tensor.label}) has been destroyed`)
    if (tensor.dtype !== wanted.dtype)
      throw new Error(`${spec.name}: ${wanted.name} must be ${wanted.dtype}, got ${tensor.dtype}`)
    const { shape } = tensor
    for (const d of wanted.shape)
      if (typeof d === 'object' && sizes[d.letter]! % d.by !== 0)
        throw new Error(
          `${spec.name}: ${d.letter} must be a multiple of ${d.by} (${wanted.name} is ${form(wanted, {})}), got ${sizes[d.letter]}`,
        )
    const matches =
      shape.length === wanted.shape.length && wanted.shape.every((d, i) => (sizeOf(d, sizes) ?? shape[i]) === shape[i])
    if (!matches)
      throw new Error(`${spec.name}: ${wanted.name} must be ${form(wanted, sizes)}, got [${shape.join(', ')}]`)
    wanted.shape.forEach((d, i) => {
      if (typeof d === 'string') sizes[d] = shape[i]!
    })
  }
  for (const { name } of spec.scalars) {
    const value = scalars[name]
    if (value === undefined || Number.isNaN(value)) throw new Error(`${spec.name}: scalar ${name} is missing`)
    sizes[name] = value
  }
  checkAliases(spec, tensors)
  return sizes
}

/** A tensor that is written may not share memory with another one of the same call. */
function checkAliases(spec: KernelSpec, tensors: Readonly<Record<string, Tensor>>): void {
  for (const { name, role } of spec.tensors) {
    if (role === 'input') continue
    for (const other of spec.tensors)
      if (other.name !== name && tensors[other.name]!.memory === tensors[name]!.memory)
        throw new Error(`${spec.name}: ${name} and ${other.name} must not share memory`)
  }
}
