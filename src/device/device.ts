// One device behind one call: `run` records a kernel on the GPU or posts it to the CPU threads.
import { type KernelName, type KernelScalars, type KernelTensors, kernels } from '../generated/kernels.ts'
import type { Backend, Profiler, Statistics } from './backend.ts'
import { Signature } from './kernel.ts'
import { Step } from './step.ts'
import { BYTES, type DType, sizeOf, Tensor, type TensorData } from './tensor.ts'

type Scalars<K extends KernelName> = KernelScalars[K] extends never ? [] : [Record<KernelScalars[K], number>]

export interface TensorOptions {
  readonly dtype?: DType
  readonly label?: string
  /** Initial contents, of as many elements as the shape holds. */
  readonly data?: TensorData
}

/** Where calls go: a device, which records them, or a list, which keeps them as steps. */
export type Calls = Pick<Device, 'kind' | 'run'>

const NONE: Readonly<Record<string, number>> = {}

export class Device {
  readonly backend: Backend
  readonly kind: 'wasm' | 'webgpu'
  /** 'wasm', 'webgpu' or 'webgpu:software'. */
  readonly name: string
  /** For people: back end, threads or adapter. */
  readonly description: string
  /** For people: which device was opened and why, in one sentence without a full stop. */
  readonly choice: string
  /** By kernel, made when it is first called; they hold the tensors of its latest call. */
  readonly #signatures = new Map<string, Signature>()
  #destroyed: Promise<void> | null = null

  constructor(backend: Backend, choice: string) {
    this.backend = backend
    this.kind = backend.kind
    this.name = backend.name
    this.description = backend.description
    this.choice = choice
  }

  /** Makes a tensor; its contents are undefined until written. Throws when it exceeds the device's limits or memory. */
  tensor(shape: readonly number[], { dtype = 'f32', label = 'tensor', data }: TensorOptions = {}): Tensor {
    if (!Object.hasOwn(BYTES, dtype))
      throw new TypeError(`${label}: dtype must be one of ${Object.keys(BYTES).join(', ')}, got "${dtype}"`)
    const size = sizeOf(shape, label)
    // Both back ends work on whole words, and neither can bind nothing.
    const bytes = Math.max(4, Math.ceil((size * BYTES[dtype]) / 4) * 4)
    if (bytes > this.backend.maxTensorBytes)
      throw new RangeError(
        `${label}: [${shape.join(', ')}] ${dtype} takes ${bytes} bytes, ${this.description} allows ${this.backend.maxTensorBytes} in one tensor; store it in fewer bits or use another device`,
      )
    if (data && data.length !== size)
      throw new RangeError(`${label}: [${shape.join(', ')}] needs ${size} values, got ${data.length}`)
    const tensor = new Tensor(this, shape, dtype, label, this.backend.allocate(bytes, label))
    if (data) tensor.write(data)
    return tensor
  }

  /**
   * Records one kernel. Names, dtypes and shapes are checked here; the work happens later and in order. Never waits: errors of
   * the device itself are thrown by the next `done` or `read`.
   */
  run<K extends KernelName>(name: K, tensors: Record<KernelTensors[K], Tensor>, ...rest: Scalars<K>): void {
    const signature = this.#check(name, tensors, rest[0])
    if (signature.spec.split(signature.sizes) > 0) this.backend.run(signature)
  }

  /**
   * Checks a call as `run` does and gives it as a step, whose `run` records it again at a fraction of the cost. Records nothing.
   * A list of steps is a plan: `replay` records it with one call.
   */
  prepare<K extends KernelName>(name: K, tensors: Record<KernelTensors[K], Tensor>, ...rest: Scalars<K>): Step<K> {
    return new Step(this, name, this.#check(name, tensors, rest[0]))
  }

  /** Records prepared steps of this device in order. */
  replay(steps: readonly Pick<Step, 'device' | 'run'>[]): void {
    for (let i = 0; i < steps.length; i++) {
      const step = steps[i]!
      if (step.device !== this) throw new Error(`replay: step ${i} belongs to another device`)
      step.run()
    }
  }

  /** Sets every element of an f32 tensor, as before gradients are summed in it. */
  fill(tensor: Tensor, value = 0): void {
    this.run('fill', { x: tensor.view([tensor.size]) }, { value })
  }

  /** Whether a kernel can run here: false where it needs an optional feature that the GPU lacks. */
  supports(name: KernelName): boolean {
    return this.backend.supports(this.#signature(name).spec)
  }

  /**
   * Has every call from now on timed, or none (null). On a GPU each call becomes a pass of its own meanwhile; the device must
   * have been opened with `profile: true`, and an error says so otherwise.
   */
  profile(profiler: Profiler | null): void {
    this.backend.profile(profiler)
  }

  /** Counts of tensors, buffers, bind groups and calls at this moment. */
  statistics(): Statistics {
    return this.backend.statistics()
  }

  /** Waits until everything recorded has been executed; throws the first error that the device kept. */
  done(): Promise<void> {
    return this.backend.done()
  }

  /** Frees the device and every tensor on it; safe to call twice. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.backend.destroy()
    return this.#destroyed
  }

  #signature(name: string): Signature {
    const known = this.#signatures.get(name)
    if (known) return known
    if (!Object.hasOwn(kernels, name))
      throw new Error(`device: there is no kernel "${name}"; there are ${Object.keys(kernels).join(', ')}`)
    const signature = new Signature(kernels[name as KernelName])
    this.#signatures.set(name, signature)
    return signature
  }

  #check(name: string, tensors: Readonly<Record<string, Tensor>>, scalars: Readonly<Record<string, number>> = NONE) {
    const signature = this.#signature(name)
    signature.check(this, tensors, scalars)
    return signature
  }
}
