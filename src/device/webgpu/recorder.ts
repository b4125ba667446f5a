// Records dispatches into one command encoder, with their parameters in a ring, and submits them when somebody waits.
import type { Sizes } from '../kernel.ts'
import { type Faults, GPU_USAGE } from './faults.ts'
import type { Block } from './memory.ts'
import type { Timestamps } from './timestamps.ts'

/** Uniform offsets are multiples of 256 bytes at most; one slot holds the parameters of one kernel. */
const SLOT_BYTES = 256
const SLOT_WORDS = SLOT_BYTES / 4
/** Dispatches of one command buffer: the GPU works on one while the next is recorded, and a submission costs as much as a few of them. */
export const SLOTS = 128

/** What one dispatch needs, all of it made before. */
export interface Dispatch {
  readonly kernel: string
  readonly sizes: Sizes
  readonly pipeline: GPUComputePipeline
  readonly group: GPUBindGroup
  readonly blocks: readonly Block[]
  readonly words: Uint32Array
  grid: readonly [number, number, number]
}

export class Recorder {
  readonly params: GPUBuffer
  readonly #device: GPUDevice
  readonly #faults: Faults
  readonly #staging = new Uint32Array(SLOTS * SLOT_WORDS)
  readonly #offset = [0]
  #encoder: GPUCommandEncoder | null = null
  #pass: GPUComputePassEncoder | null = null
  /** What the pass has set last. */
  #pipeline: GPUComputePipeline | null = null
  #slot = 0
  #calls = 0
  /** Number of the command buffer that is being recorded. */
  #batch = 0
  /** Set while dispatches are timed. */
  timestamps: Timestamps | null = null

  constructor(device: GPUDevice, faults: Faults) {
    this.#device = device
    this.#faults = faults
    this.params = device.createBuffer({
      label: 'params',
      size: SLOTS * SLOT_BYTES,
      usage: GPU_USAGE.UNIFORM | GPU_USAGE.COPY_DST,
    })
  }

  get calls(): number {
    return this.#calls
  }

  get submits(): number {
    return this.#batch
  }

  record({ kernel, sizes, pipeline, group, blocks, words, grid }: Dispatch): void {
    this.#faults.check()
    if (this.#slot === SLOTS) this.submit()
    const at = this.#slot * SLOT_WORDS
    for (let i = 0; i < words.length; i++) this.#staging[at + i] = words[i]!
    for (let i = 0; i < blocks.length; i++) blocks[i]!.batch = this.#batch
    // Times are taken at the borders of a pass, so that a timed dispatch gets its own.
    if (this.timestamps) this.#endPass()
    const pass = this.#pass ?? this.#beginPass(this.timestamps?.next(kernel, sizes))
    if (pipeline !== this.#pipeline) {
      pass.setPipeline(pipeline)
      this.#pipeline = pipeline
    }
    this.#offset[0] = at * 4
    pass.setBindGroup(0, group, this.#offset)
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2])
    this.#slot++
    this.#calls++
  }

  /** Records a copy out of a block and submits everything. */
  copyOut({ buffer }: Block, byteOffset: number, target: GPUBuffer, bytes: number): void {
    this.#endPass()
    this.#encoder ??= this.#device.createCommandEncoder()
    this.#encoder.copyBufferToBuffer(buffer, byteOffset, target, 0, bytes)
    this.submit()
  }

  /** Whether dispatches that wait to be submitted use a block. */
  uses(block: Block): boolean {
    return this.#encoder !== null && block.batch === this.#batch
  }

  /** Hands everything recorded so far to the GPU. */
  submit(): void {
    const encoder = this.#encoder
    if (!encoder) return
    this.#endPass()
    const collect = this.timestamps?.resolve(encoder)
    if (this.#slot > 0) this.#device.queue.writeBuffer(this.params, 0, this.#staging, 0, this.#slot * SLOT_WORDS)
    this.#device.queue.submit([encoder.finish()])
    collect?.()
    this.#encoder = null
    this.#slot = 0
    this.#batch++
  }

  #beginPass(timestampWrites?: GPUComputePassTimestampWrites): GPUComputePassEncoder {
    this.#encoder ??= this.#device.createCommandEncoder()
    this.#pass = this.#encoder.beginComputePass({ timestampWrites })
    return this.#pass
  }

  #endPass(): void {
    this.#pass?.end()
    this.#pass = null
    this.#pipeline = null
  }
}
