// Times of dispatches by timestamp queries: two for each, resolved with the command buffer and told when the device is waited for.
import type { Profiler } from '../backend.ts'
import type { Sizes } from '../kernel.ts'
import { type Faults, GPU_MAP_READ, GPU_USAGE } from './faults.ts'

interface Timed {
  readonly kernel: string
  readonly sizes: Sizes
}

export class Timestamps {
  readonly #device: GPUDevice
  readonly #faults: Faults
  readonly #profiler: Profiler
  readonly #queries: GPUQuerySet
  readonly #resolved: GPUBuffer
  /** Dispatches of the command buffer that is being recorded. */
  #calls: Timed[] = []
  #settling: Promise<void> = Promise.resolve()
  /** Results on their way, in the order of the command buffers. */
  #pending: { readonly calls: readonly Timed[]; readonly target: GPUBuffer; readonly mapped: Promise<unknown> }[] = []

  /** `slots`: the most dispatches of a command buffer. The device must have the feature timestamp-query. */
  constructor(device: GPUDevice, faults: Faults, profiler: Profiler, slots: number) {
    this.#device = device
    this.#faults = faults
    this.#profiler = profiler
    this.#queries = device.createQuerySet({ label: 'profile', type: 'timestamp', count: 2 * slots })
    this.#resolved = device.createBuffer({
      label: 'profile',
      size: 16 * slots,
      usage: GPU_USAGE.QUERY_RESOLVE | GPU_USAGE.COPY_SRC,
    })
  }

  /** Takes the call that is recorded next: where its pass leaves its times. */
  next(kernel: string, sizes: Sizes): GPUComputePassTimestampWrites {
    const at = 2 * this.#calls.length
    this.#calls.push({ kernel, sizes: { ...sizes } })
    return { querySet: this.#queries, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 }
  }

  /** Adds the commands that read the times back; what it returns is to be called after the submission. */
  resolve(encoder: GPUCommandEncoder): () => void {
    const calls = this.#calls
    if (calls.length === 0) return () => {}
    this.#calls = []
    const size = 16 * calls.length
    const target = this.#device.createBuffer({
      label: 'profile times',
      size,
      usage: GPU_USAGE.MAP_READ | GPU_USAGE.COPY_DST,
    })
    encoder.resolveQuerySet(this.#queries, 0, 2 * calls.length, this.#resolved, 0)
    encoder.copyBufferToBuffer(this.#resolved, 0, target, 0, size)
    return () => {
      const mapped = target.mapAsync(GPU_MAP_READ).catch((error: Error) => {
        if (!this.#faults.found && !this.#faults.destroyed) this.#faults.keep(error.message)
      })
      this.#pending.push({ calls, target, mapped })
    }
  }

  /** Tells the times of everything submitted so far, in order even when several wait. */
  settle(): Promise<void> {
    this.#settling = this.#settling.then(() => this.#tell())
    return this.#settling
  }

  async #tell(): Promise<void> {
    while (this.#pending.length > 0) {
      const { calls, target, mapped } = this.#pending.shift()!
      await mapped
      this.#faults.check()
      const times = new BigUint64Array(target.getMappedRange())
      const ms = (i: number): number => Number(times[i]) / 1e6
      for (const [i, timed] of calls.entries()) this.#profiler.call({ ...timed, begin: ms(2 * i), end: ms(2 * i + 1) })
      target.destroy()
    }
  }

  destroy(): void {
    this.#queries.destroy()
    this.#resolved.destroy()
  }
}
