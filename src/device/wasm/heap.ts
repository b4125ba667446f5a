// First-fit allocator over one WebAssembly memory, kept on the host so that no thread ever allocates.

const PAGE = 65536
/** Tensors begin on a cache line. */
const ALIGN = 64
/** The most that 32-bit addresses reach, less one page so that no end address wraps to 0. */
export const MAX_BYTES = 2 ** 32 - PAGE
/** Memory grows by an eighth of itself, and by this much at least: each time costs a runtime's garbage collector a look at all. */
const MIN_GROWTH = 2 ** 24

interface Block {
  address: number
  bytes: number
}

export class Heap {
  readonly memory: WebAssembly.Memory
  /** Free blocks in the order of their addresses, never touching each other. */
  #free: Block[] = []
  #end: number
  #used = 0

  /** Manages everything from `begin` (bytes) on. */
  constructor(memory: WebAssembly.Memory, begin: number) {
    this.memory = memory
    this.#end = Math.ceil(begin / ALIGN) * ALIGN
  }

  /** Bytes given out at present. */
  get used(): number {
    return this.#used
  }

  /** Returns the address of `bytes` bytes; throws a RangeError when WebAssembly memory is exhausted. */
  allocate(bytes: number, label: string): Block {
    const size = Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN)
    const index = this.#free.findIndex((block) => block.bytes >= size)
    this.#used += size
    if (index >= 0) {
      const block = this.#free[index]!
      const address = block.address
      if (block.bytes === size) this.#free.splice(index, 1)
      else {
        block.address += size
        block.bytes -= size
      }
      return { address, bytes: size }
    }
    // A free block at the very end is extended rather than left behind.
    const last = this.#free.at(-1)
    const address = last && last.address + last.bytes === this.#end ? last.address : this.#end
    try {
      this.#grow(address + size)
    } catch (error) {
      this.#used -= size
      throw new RangeError(
        `${label}: cannot get ${bytes} bytes of WebAssembly memory beside the ${this.#used} in use (${(error as Error).message}); use smaller batches, weights in fewer bits or a GPU`,
      )
    }
    if (address !== this.#end) this.#free.pop()
    this.#end = address + size
    return { address, bytes: size }
  }

  free({ address, bytes }: Block): void {
    this.#used -= bytes
    let index = this.#free.findIndex((block) => block.address > address)
    if (index < 0) index = this.#free.length
    this.#free.splice(index, 0, { address, bytes })
    this.#join(index)
    if (index > 0) this.#join(index - 1)
  }

  #join(index: number): void {
    const [block, next] = [this.#free[index]!, this.#free[index + 1]]
    if (!next || block.address + block.bytes !== next.address) return
    block.bytes += next.bytes
    this.#free.splice(index + 1, 1)
  }

  #grow(end: number): void {
    if (end > MAX_BYTES) throw new Error(`${end} bytes exceed the 4 GiB that 32-bit addresses reach`)
    const present = this.memory.buffer.byteLength
    if (end <= present) return
    const ample = Math.min(Math.max(end, present + Math.max(present / 8, MIN_GROWTH)), MAX_BYTES)
    try {
      this.memory.grow(pages(ample - present))
    } catch {
      this.memory.grow(pages(end - present))
    }
  }
}

const pages = (bytes: number): number => Math.ceil(bytes / PAGE)
