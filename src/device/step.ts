// A call that was checked once and is recorded many times.
import type { KernelName, KernelScalars } from '../generated/kernels.ts'
import type { Prepared } from './backend.ts'
import type { Device } from './device.ts'
import { memoriesOf, type Signature } from './kernel.ts'
import type { Memory } from './tensor.ts'

/**
 * One prepared call: `run` records it again without another check than that its tensors are still there. Belongs to the tensors
 * it was prepared with, and costs nothing to drop.
 */
export class Step<K extends KernelName = KernelName> {
  readonly device: Device
  readonly kernel: K
  readonly #signature: Signature
  readonly #memories: readonly Memory[]
  readonly #words: Uint32Array
  readonly #sizes: Record<string, number>
  readonly #prepared: Prepared

  /** Takes what `signature` has just checked. */
  constructor(device: Device, kernel: K, signature: Signature) {
    const { spec, words, sizes, tensors, shared } = signature
    this.device = device
    this.kernel = kernel
    this.#signature = signature
    this.#memories = memoriesOf(tensors)
    this.#sizes = { ...sizes }
    this.#prepared = device.backend.prepare({ spec, words, sizes: this.#sizes, tensors, shared })
    this.#words = this.#prepared.words
  }

  /** Records the call once more. Throws where a tensor has been destroyed; errors of the device come with the next wait. */
  run(): void {
    const memories = this.#memories
    for (let i = 0; i < memories.length; i++) if (memories[i]!.freed) throw this.#gone()
    this.#prepared.record()
  }

  /** Changes scalars for the runs from now on; those that are not named stay. Throws at a name that the kernel does not have. */
  set(scalars: { readonly [S in KernelScalars[K]]?: number }): void {
    this.#signature.change(this.#words, this.#sizes, scalars as Record<string, number>)
    this.#prepared.resize(this.#sizes)
  }

  #gone(): Error {
    return new Error(`${this.kernel}: a tensor of this step has been destroyed; prepare the step again with another`)
  }
}
