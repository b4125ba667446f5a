// The GPU back end: tensors are buffers, calls are dispatches, errors are kept for whoever waits next.
import { kernels } from '../../generated/kernels.ts'
import { shaderTexts } from '../../generated/shader_texts.ts'
import type { Backend, Call, Prepared, Profiler, Statistics } from '../backend.ts'
import type { KernelSpec, Sizes } from '../kernel.ts'
import type { Memory } from '../tensor.ts'
import type { FoundAdapter } from './adapter.ts'
import { Faults, GPU_MAP_READ, GPU_USAGE } from './faults.ts'
import { type Block, GpuHeap, type GpuMemory } from './memory.ts'
import { BindGroups, Pipelines } from './pipelines.ts'
import { type Dispatch, Recorder, SLOTS } from './recorder.ts'
import { Timestamps } from './timestamps.ts'

/** WebGPU allows this many workgroups per dimension. */
const MAX_GROUPS = 65535

export interface WebgpuOptions {
  /** Asks for timestamp queries, where the adapter has them. */
  readonly profile?: boolean
  /** Optional features to ask for, where the adapter has them; by default those that some kernel needs. */
  readonly needs?: readonly string[]
}

const NEEDED = [...new Set(Object.values(kernels).flatMap(({ needs }) => needs))]

/** Opens a device on the adapter with the largest buffers that it offers. */
export async function openWebgpu(
  found: FoundAdapter,
  { profile = false, needs = NEEDED }: WebgpuOptions = {},
): Promise<Backend> {
  const { limits } = found.adapter
  const texts = await shaderTexts()
  const wanted = [...needs, ...(profile ? ['timestamp-query'] : [])]
  const device = await found.adapter.requestDevice({
    requiredFeatures: wanted.filter((feature) => found.features.includes(feature)) as GPUFeatureName[],
    requiredLimits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    },
  })
  return new Webgpu(found, device, texts)
}

class Webgpu implements Backend {
  readonly kind = 'webgpu'
  readonly name: string
  readonly description: string
  readonly maxTensorBytes: number
  readonly features: readonly string[]
  readonly #found: FoundAdapter
  readonly #device: GPUDevice
  readonly #faults: Faults
  readonly #recorder: Recorder
  readonly #heap: GpuHeap
  readonly #pipelines: Pipelines
  readonly #groups: BindGroups
  /** Of profilers that hear the rest of what was theirs. */
  #ended: Timestamps[] = []

  constructor(found: FoundAdapter, device: GPUDevice, texts: Readonly<Record<string, string>>) {
    const { maxBufferSize, maxStorageBufferBindingSize } = device.limits
    this.name = found.software ? 'webgpu:software' : 'webgpu'
    this.description = `WebGPU, ${found.description}`
    this.maxTensorBytes = Math.min(maxBufferSize, maxStorageBufferBindingSize)
    this.features = [...device.features].map(String).sort()
    this.#found = found
    this.#device = device
    this.#faults = new Faults(device)
    this.#recorder = new Recorder(device, this.#faults)
    this.#pipelines = new Pipelines(device, this.description, texts)
    this.#groups = new BindGroups(device, this.#recorder.params)
    this.#heap = new GpuHeap(device, this.#faults, this.maxTensorBytes, (block) => this.#forget(block))
  }

  allocate(byteLength: number, label: string): Memory {
    this.#faults.check()
    return this.#heap.allocate(byteLength, label)
  }

  free(memory: Memory): void {
    if (!this.#faults.destroyed) this.#heap.free(memory as GpuMemory)
  }

  write(memory: Memory, byteOffset: number, bytes: Uint8Array): void {
    this.#faults.check()
    const { block } = memory as GpuMemory
    // A write goes straight to the queue; what is recorded and not submitted yet would come after it.
    if (this.#recorder.uses(block)) this.#recorder.submit()
    const { queue } = this.#device
    const whole = bytes.length & ~3
    if (whole > 0) queue.writeBuffer(block.buffer, byteOffset, bytes as Uint8Array<ArrayBuffer>, 0, whole)
    if (whole < bytes.length) {
      const tail = new Uint8Array(4)
      tail.set(bytes.subarray(whole))
      queue.writeBuffer(block.buffer, byteOffset + whole, tail)
    }
  }

  async read(memory: Memory, byteOffset: number, byteLength: number): Promise<ArrayBuffer> {
    this.#faults.check()
    const size = Math.max(4, Math.ceil(byteLength / 4) * 4)
    const target = this.#device.createBuffer({
      label: 'read',
      size,
      usage: GPU_USAGE.MAP_READ | GPU_USAGE.COPY_DST,
    })
    try {
      this.#recorder.copyOut((memory as GpuMemory).block, byteOffset, target, size)
      await this.#found.wait(target.mapAsync(GPU_MAP_READ)).catch((error: Error) => this.#blame(error))
      await this.#settle()
      const copy = target.getMappedRange().slice(0, byteLength)
      target.unmap()
      return copy
    } finally {
      target.destroy()
    }
  }

  run(call: Call): void {
    const { spec, words, sizes } = call
    this.#faults.check()
    this.#recorder.record(this.#dispatch(call, words, gridOf(spec, sizes)))
  }

  prepare(call: Call): Prepared {
    this.#faults.check()
    const { spec } = call
    const words = call.words.slice()
    // The call belongs to the caller and changes with the next check.
    const kept = { ...call, words, tensors: call.tensors.slice() }
    let dispatch: Dispatch | null = null
    let empty = true
    const resize = (sizes: Sizes): void => {
      empty = spec.split(sizes) === 0
      if (empty) return
      const grid = gridOf(spec, sizes)
      if (dispatch) dispatch.grid = grid
      else dispatch = this.#dispatch(kept, words, grid)
    }
    resize(call.sizes)
    return {
      words,
      record: () => {
        if (!empty) this.#recorder.record(dispatch!)
      },
      resize,
    }
  }

  supports({ needs }: KernelSpec): boolean {
    return needs.every((feature) => this.features.includes(feature))
  }

  profile(profiler: Profiler | null): void {
    this.#faults.check()
    if (profiler && !this.features.includes('timestamp-query'))
      throw new Error(
        `profile: ${this.description} was opened without timestamp queries; open it with profile: true${this.#found.features.includes('timestamp-query') ? '' : ', where the adapter has them (this one has not)'}`,
      )
    this.#recorder.submit()
    if (this.#recorder.timestamps) this.#ended.push(this.#recorder.timestamps)
    this.#recorder.timestamps = profiler && new Timestamps(this.#device, this.#faults, profiler, SLOTS)
  }

  statistics(): Statistics {
    const { calls, submits } = this.#recorder
    return {
      ...this.#heap.counts(),
      bindGroups: this.#groups.count,
      pipelines: this.#pipelines.count,
      calls,
      submits,
    }
  }

  async done(): Promise<void> {
    this.#faults.check()
    this.#recorder.submit()
    await this.#heap.settle()
    await this.#found.wait(this.#device.queue.onSubmittedWorkDone()).catch((error: Error) => this.#blame(error))
    await this.#settle()
  }

  async destroy(): Promise<void> {
    if (this.#faults.destroyed) return
    this.#recorder.submit()
    await this.#device.queue.onSubmittedWorkDone().catch(() => {})
    this.#faults.destroyed = true
    this.#device.destroy()
    await this.#device.lost
    this.#found.release()
  }

  #dispatch({ spec, tensors, sizes, shared }: Call, words: Uint32Array, grid: [number, number, number]): Dispatch {
    const pipeline = this.#pipelines.of(spec)
    const group = this.#groups.of(pipeline, tensors, shared)
    const blocks = blocksOf(tensors)
    return { kernel: spec.name, sizes, pipeline: pipeline.pipeline, group, blocks, words, grid }
  }

  /** Before a buffer is destroyed: what waits to be submitted may use it. */
  #forget(block: Block): void {
    if (this.#recorder.uses(block)) this.#recorder.submit()
    this.#groups.forget(block)
  }

  /** Waits for what was asked of the device beside its work, and throws the first error. */
  async #settle(): Promise<void> {
    await this.#heap.settle()
    this.#faults.check()
    const ended = this.#ended
    this.#ended = []
    for (const timestamps of ended) {
      await timestamps.settle()
      timestamps.destroy()
    }
    await this.#recorder.timestamps?.settle()
    this.#faults.check()
  }

  /** Keeps the error of a wait; where the device has an error already, this one is its consequence. */
  #blame(error: Error): void {
    if (!this.#faults.destroyed) this.#faults.keep(error.message)
  }
}

function blocksOf(tensors: Call['tensors']): Block[] {
  const blocks: Block[] = []
  for (let i = 0; i < tensors.length; i++) blocks.push((tensors[i]!.memory as GpuMemory).block)
  return blocks
}

/** Workgroups of a call; a one-dimensional grid that is too long is folded into x and y, as every such kernel expects. */
function gridOf(spec: KernelSpec, sizes: Sizes): [number, number, number] {
  const [x = 1, y = 1, z = 1] = spec.dispatch(sizes)
  if (x <= MAX_GROUPS && y <= MAX_GROUPS && z <= MAX_GROUPS) return [x, y, z]
  if (y === 1 && z === 1) {
    const rows = Math.ceil(x / MAX_GROUPS)
    if (rows <= MAX_GROUPS) return [Math.ceil(x / rows), rows, 1]
  }
  throw new RangeError(`${spec.name}: a grid of ${x} x ${y} x ${z} workgroups exceeds WebGPU's ${MAX_GROUPS} a side`)
}
