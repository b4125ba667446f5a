// GPU buffers of tensors. Freed ones are kept for a while: a step that makes the same tensors again gets the same buffers, and
// with them its bind groups.
import { type Memory, VIEW_ALIGNMENT } from '../tensor.ts'
import { type Faults, GPU_USAGE } from './faults.ts'

/** Freed buffers are kept up to this many bytes together, the oldest go first; one of more than half of it is not kept. */
export const KEPT_BYTES = 2 ** 28
/** A new buffer of this size or more first releases as many bytes of kept ones, so that the two do not add up. */
const LARGE_BYTES = 2 ** 24

/** A buffer; `number` tells it from all others of the device. */
export interface Block {
  readonly buffer: GPUBuffer
  readonly bytes: number
  readonly number: number
  /** The command buffer that used it last. */
  batch: number
}

export interface GpuMemory extends Memory {
  readonly block: Block
}

/**
 * Bytes of the buffer for a tensor: an eighth of a power of two more at most, and a MiB at most, so that tensors of nearly the
 * same size share buffers one after the other.
 */
export function blockBytes(byteLength: number, most: number): number {
  const step = Math.max(VIEW_ALIGNMENT, Math.min(2 ** 20, 2 ** (Math.floor(Math.log2(byteLength)) - 3)))
  // Whole vectors of four words, as which some kernels bind it.
  return Math.max(Math.ceil(byteLength / 16) * 16, Math.min(Math.ceil(byteLength / step) * step, most))
}

export class GpuHeap {
  readonly #device: GPUDevice
  readonly #faults: Faults
  readonly #most: number
  /** To be called before a buffer is destroyed. */
  readonly #forget: (block: Block) => void
  /** By size, each list in the order of the numbers. */
  readonly #free = new Map<number, Block[]>()
  /** The same blocks, those freed first in front. */
  readonly #kept = new Set<Block>()
  #keptBytes = 0
  #bytes = 0
  #tensors = 0
  #blocks = 0
  #serial = 0
  /** Allocation checks still under way; whoever waits for the device waits for them too. */
  #checks: Promise<void>[] = []

  constructor(device: GPUDevice, faults: Faults, most: number, forget: (block: Block) => void) {
    this.#device = device
    this.#faults = faults
    this.#most = most
    this.#forget = forget
  }

  /** Never waits: that there is no memory is told by the next wait. */
  allocate(byteLength: number, label: string): GpuMemory {
    const bytes = blockBytes(byteLength, this.#most)
    const block = this.#take(bytes) ?? this.#create(bytes, label)
    this.#tensors++
    this.#bytes += bytes
    return { byteLength, freed: false, call: 0, block }
  }

  free({ block }: GpuMemory): void {
    this.#tensors--
    this.#bytes -= block.bytes
    if (block.bytes > KEPT_BYTES / 2) {
      this.#destroy(block)
      return
    }
    const list = this.#free.get(block.bytes)
    if (list) {
      let at = list.length
      while (at > 0 && list[at - 1]!.number > block.number) at--
      list.splice(at, 0, block)
    } else this.#free.set(block.bytes, [block])
    this.#kept.add(block)
    this.#keptBytes += block.bytes
    this.#release(this.#keptBytes - KEPT_BYTES)
  }

  /** Waits for the checks of all allocations so far. */
  async settle(): Promise<void> {
    const pending = this.#checks
    this.#checks = []
    await Promise.all(pending)
  }

  counts() {
    return { tensors: this.#tensors, bytes: this.#bytes, keptBytes: this.#keptBytes, buffers: this.#blocks }
  }

  /** The oldest kept block of exactly this size: the same calls in the same order get the same blocks. */
  #take(bytes: number): Block | null {
    const block = this.#free.get(bytes)?.[0]
    if (!block) return null
    this.#unkeep(block)
    return block
  }

  #unkeep(block: Block): void {
    const list = this.#free.get(block.bytes)!
    if (list.length === 1) this.#free.delete(block.bytes)
    else list.splice(list.indexOf(block), 1)
    this.#kept.delete(block)
    this.#keptBytes -= block.bytes
  }

  /** Destroys kept blocks, the oldest first, until `bytes` bytes are gone or none is left. */
  #release(bytes: number): void {
    for (const block of this.#kept) {
      if (bytes <= 0) return
      bytes -= block.bytes
      this.#unkeep(block)
      this.#destroy(block)
    }
  }

  #destroy(block: Block): void {
    this.#forget(block)
    block.buffer.destroy()
    this.#blocks--
  }

  #create(bytes: number, label: string): Block {
    if (bytes >= LARGE_BYTES) this.#release(bytes)
    this.#device.pushErrorScope('out-of-memory')
    const buffer = this.#device.createBuffer({
      label,
      size: bytes,
      usage: GPU_USAGE.STORAGE | GPU_USAGE.COPY_SRC | GPU_USAGE.COPY_DST,
    })
    this.#checks.push(this.#outcome(bytes, label))
    this.#blocks++
    return { buffer, bytes, number: this.#serial++, batch: -1 }
  }

  async #outcome(bytes: number, label: string): Promise<void> {
    try {
      const error = await this.#device.popErrorScope()
      if (error)
        this.#faults.keep(
          `${label}: no memory for ${bytes} bytes (${error.message}); open the device again and use smaller batches`,
        )
    } catch (error) {
      if (!this.#faults.destroyed) this.#faults.keep((error as Error).message)
    }
  }
}
