// What a kernel is to the host, and the check of one call: names, dtypes, and shape letters unified as in einsum.
import type { DType, Memory, Tensor } from './tensor.ts'

/** A letter, a literal size, or a letter divided by a number that divides it. */
export type Dimension = string | number | { readonly letter: string; readonly by: number }

export interface TensorSpec {
  readonly name: string
  readonly shape: readonly Dimension[]
  readonly dtype: DType
  /** An output is overwritten, whatever it held; what is in place is read and updated (see CONTRIBUTING, "Gradients"). */
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
  /** Optional features of WebGPU without which the shader does not compile; its twin on the CPU needs nothing. */
  readonly needs: readonly string[]
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
  /** The shader of a kernel that is none of Pinball's own, whose texts are in src/generated/shaders. */
  readonly wgsl?: string
}

/** The shapes of one kernel, read once, and the results of the latest check, which the next one overwrites. */
export class Signature {
  readonly spec: KernelSpec
  /** Letters and scalars as 32-bit words, in the order of Params. */
  readonly words: Uint32Array
  readonly sizes: Record<string, number> = {}
  /** In the order of the header. */
  readonly tensors: Tensor[] = []
  /** Whether tensors of the call share memory. */
  shared = false
  readonly #floats: Float32Array
  /** By tensor and dimension: the number of the letter, or -1, and the factor (the size itself without a letter). */
  readonly #letters: readonly (readonly number[])[]
  readonly #factors: readonly (readonly number[])[]
  /** By letter; -1 is unknown. */
  readonly #values: number[]

  constructor(spec: KernelSpec) {
    this.spec = spec
    this.words = new Uint32Array(spec.letters.length + spec.scalars.length)
    this.#floats = new Float32Array(this.words.buffer)
    this.#values = spec.letters.map(() => -1)
    const letterOf = (d: Dimension) => (typeof d === 'number' ? -1 : spec.letters.indexOf(nameOf(d)))
    const factorOf = (d: Dimension) => (typeof d === 'number' ? d : typeof d === 'string' ? 1 : d.by)
    this.#letters = spec.tensors.map(({ shape }) => shape.map(letterOf))
    this.#factors = spec.tensors.map(({ shape }) => shape.map(factorOf))
  }

  /**
   * Checks the tensors and scalars of one call and fills `sizes`, `words` and `tensors`. Throws with the kernel's and the
   * tensor's name, what must hold and what was found.
   */
  check(device: object, tensors: Readonly<Record<string, Tensor>>, scalars: Readonly<Record<string, number>>): void {
    const { spec, words, sizes } = this
    const values = this.#values
    for (let i = 0; i < values.length; i++) values[i] = -1
    call++
    this.shared = false
    for (let t = 0; t < spec.tensors.length; t++) {
      const wanted = spec.tensors[t]!
      const tensor = tensors[wanted.name]!
      if (!tensor || tensor.memory.freed || tensor.dtype !== wanted.dtype) throw this.#refuse(wanted, tensor)
      if (!this.#unify(t, tensor.shape)) throw this.#refuse(wanted, tensor)
      if (tensor.device !== device)
        throw new Error(`${spec.name}: ${wanted.name} lives on another device (${tensor.device.description})`)
      const { memory } = tensor
      if (memory.call === call) this.shared = true
      memory.call = call
      this.tensors[t] = tensor
    }
    for (let i = 0; i < values.length; i++) {
      words[i] = values[i]!
      sizes[spec.letters[i]!] = values[i]!
    }
    for (let i = 0; i < spec.scalars.length; i++) this.#scalar(i, scalars[spec.scalars[i]!.name])
    if (this.shared) this.#checkAliases()
  }

  /** Changes scalars of the words and sizes of a call that was checked before. Throws at a name that is no scalar. */
  change(words: Uint32Array, sizes: Record<string, number>, scalars: Readonly<Record<string, number>>): void {
    const { spec } = this
    for (const name in scalars) {
      const index = spec.scalars.findIndex((scalar) => scalar.name === name)
      if (index < 0)
        throw new Error(
          `${spec.name}: there is no scalar "${name}", ${spec.scalars.length === 0 ? 'it has none' : `it has ${spec.scalars.map((scalar) => scalar.name).join(', ')}`}`,
        )
      this.#scalar(index, scalars[name])
      words[spec.letters.length + index] = this.words[spec.letters.length + index]!
      sizes[name] = scalars[name]!
    }
  }

  #unify(t: number, shape: readonly number[]): boolean {
    const letters = this.#letters[t]!
    const factors = this.#factors[t]!
    if (shape.length !== letters.length) return false
    for (let i = 0; i < letters.length; i++) {
      const letter = letters[i]!
      if (letter < 0) {
        if (shape[i] !== factors[i]) return false
        continue
      }
      const value = shape[i]! * factors[i]!
      const known = this.#values[letter]!
      if (known < 0) this.#values[letter] = value
      else if (known !== value) return false
    }
    return true
  }

  #scalar(index: number, value: number | undefined): void {
    const { name, type } = this.spec.scalars[index]!
    if (value === undefined || Number.isNaN(value)) throw new Error(`${this.spec.name}: scalar ${name} is missing`)
    this.sizes[name] = value
    const at = this.spec.letters.length + index
    if (type === 'f32') this.#floats[at] = value
    else this.words[at] = value
  }

  /** The error of a tensor that does not fit. */
  #refuse({ name, shape, dtype }: TensorSpec, tensor: Tensor | undefined): Error {
    const at = `${this.spec.name}: `
    if (!tensor) return new Error(`${at}tensor ${name} is missing`)
    if (tensor.destroyed) return new Error(`${at}${name} (${tensor.label}) has been destroyed`)
    if (tensor.dtype !== dtype) return new Error(`${at}${name} must be ${dtype}, got ${tensor.dtype}`)
    // The check stopped at the first dimension that does not fit, and this tensor must not explain itself.
    const known = this.#known(name)
    for (const d of shape) {
      const value = typeof d === 'object' ? known.get(d.letter) : undefined
      if (typeof d === 'object' && value !== undefined && value % d.by !== 0)
        return new Error(
          `${at}${d.letter} must be a multiple of ${d.by} (${name} is [${shape.map((other) => withValue(other)).join(', ')}]), got ${value}`,
        )
    }
    const form = shape.map((d) => withValue(d, typeof d === 'number' ? undefined : known.get(nameOf(d))))
    return new Error(`${at}${name} must be [${form.join(', ')}], got [${tensor.shape.join(', ')}]`)
  }

  /** The letters that the tensors before this one have set. */
  #known(name: string): Map<string, number> {
    const known = new Map<string, number>()
    for (let t = 0; this.spec.tensors[t]!.name !== name; t++)
      this.spec.tensors[t]!.shape.forEach((d, i) => {
        if (typeof d !== 'number') known.set(nameOf(d), this.tensors[t]!.shape[i]! * this.#factors[t]![i]!)
      })
    return known
  }

  /**
   * A tensor that is written may share memory only with others that are written, where they do not overlap: WebGPU binds a
   * buffer either for reading or for writing in one call.
   */
  #checkAliases(): void {
    const { spec, tensors } = this
    for (const [i, { name, role }] of spec.tensors.entries()) {
      if (role === 'input') continue
      for (const [j, { name: other, role: otherRole }] of spec.tensors.entries()) {
        if (i === j || tensors[i]!.memory !== tensors[j]!.memory) continue
        if (overlap(tensors[i]!, tensors[j]!))
          throw new Error(`${spec.name}: ${name} and ${other} must not share memory`)
        if (otherRole === 'input')
          throw new Error(
            `${spec.name}: ${name} is written and ${other} is read, so they must not be views of one tensor (${tensors[i]!.label}, ${tensors[j]!.label}), even apart; copy one of them first`,
          )
      }
    }
  }
}

/** Counts checks, so that a memory that is met twice in one of them is noticed. */
let call = 0

const nameOf = (d: Exclude<Dimension, number>): string => (typeof d === 'string' ? d : d.letter)

function withValue(d: Dimension, value?: number): string {
  if (typeof d === 'number') return String(d)
  const letter = value === undefined ? nameOf(d) : `${nameOf(d)} = ${value}`
  return typeof d === 'string' ? letter : `${letter} / ${d.by}`
}

function overlap(a: Tensor, b: Tensor): boolean {
  return a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength
}

/** The memories of a call, each once. */
export function memoriesOf(tensors: readonly Tensor[]): Memory[] {
  return [...new Set(tensors.map(({ memory }) => memory))]
}
