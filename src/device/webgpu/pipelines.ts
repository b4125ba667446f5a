// Compiled kernels, and the bind groups that tie them to buffers; both are made once and found again.
import type { KernelSpec } from '../kernel.ts'
import { type Tensor, VIEW_ALIGNMENT } from '../tensor.ts'
import { GPU_COMPUTE } from './faults.ts'
import type { Block, GpuMemory } from './memory.ts'

/** Bind groups are forgotten with their buffers; so many at once are forgotten because views of ever new places make more. */
const MAX_GROUPS = 8192

export interface Pipeline {
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
  readonly spec: KernelSpec
  readonly number: number
}

/** Compiled kernels of one device. */
export class Pipelines {
  readonly #device: GPUDevice
  readonly #description: string
  readonly #texts: Readonly<Record<string, string>>
  readonly #known = new Map<KernelSpec, Pipeline>()

  constructor(device: GPUDevice, description: string, texts: Readonly<Record<string, string>>) {
    this.#device = device
    this.#description = description
    this.#texts = texts
  }

  get count(): number {
    return this.#known.size
  }

  /** The kernel's pipeline, compiled on first use. Throws where the device lacks a feature that it needs. */
  of(spec: KernelSpec): Pipeline {
    return this.#known.get(spec) ?? this.#compile(spec)
  }

  #compile(spec: KernelSpec): Pipeline {
    const missing = spec.needs.filter((feature) => !this.#device.features.has(feature))
    if (missing.length > 0)
      throw new Error(
        `${spec.name}: needs the WebGPU feature ${missing.join(', ')}, which ${this.#description} does not have; ask device.supports("${spec.name}") first, and use another kernel or device`,
      )
    const device = this.#device
    const buffers: GPUBufferBindingLayout[] = spec.tensors.map(({ role }) => ({
      type: role === 'input' ? 'read-only-storage' : 'storage',
    }))
    buffers.push({ type: 'uniform', hasDynamicOffset: true })
    const layout = device.createBindGroupLayout({
      label: spec.name,
      entries: buffers.map((buffer, binding) => ({ binding, visibility: GPU_COMPUTE, buffer })),
    })
    const pipeline = device.createComputePipeline({
      label: spec.name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: {
        module: device.createShaderModule({ label: `${spec.name}.wgsl`, code: spec.wgsl ?? this.#texts[spec.name]! }),
        entryPoint: 'main',
      },
    })
    const made = { pipeline, layout, spec, number: this.#known.size }
    this.#known.set(spec, made)
    return made
  }
}

interface Entry {
  readonly group: GPUBindGroup
  readonly pipeline: Pipeline
  readonly blocks: readonly Block[]
  readonly offsets: readonly number[]
  /** Bytes bound; 0 is the rest of the buffer. */
  readonly sizes: readonly number[]
  readonly hash: number
}

/** Bind groups by pipeline, buffers and places in them; found by a hash of numbers and compared one by one. */
export class BindGroups {
  readonly #device: GPUDevice
  readonly #params: GPUBuffer
  readonly #byHash = new Map<number, Entry[]>()
  readonly #byBlock = new Map<Block, Set<Entry>>()
  #count = 0

  constructor(device: GPUDevice, params: GPUBuffer) {
    this.#device = device
    this.#params = params
  }

  get count(): number {
    return this.#count
  }

  /**
   * The group for a call. A tensor is bound from its beginning to the end of its buffer, so that views of several lengths have
   * one group; `shared` says that tensors of the call lie in one buffer, where each gets its own bytes.
   */
  of(pipeline: Pipeline, tensors: readonly Tensor[], shared: boolean): GPUBindGroup {
    let hash = pipeline.number
    for (let i = 0; i < tensors.length; i++) {
      hash = Math.imul(hash, 0x01000193) ^ (tensors[i]!.memory as GpuMemory).block.number
      hash = Math.imul(hash, 0x01000193) ^ (tensors[i]!.byteOffset / VIEW_ALIGNMENT)
    }
    const list = this.#byHash.get(hash)
    if (list) for (const entry of list) if (fits(entry, pipeline, tensors, shared)) return entry.group
    return this.#make(pipeline, tensors, shared, hash)
  }

  /** Drops all groups of a buffer, which is about to be destroyed. */
  forget(block: Block): void {
    for (const entry of this.#byBlock.get(block) ?? []) {
      for (const other of entry.blocks) this.#byBlock.get(other)?.delete(entry)
      const list = this.#byHash.get(entry.hash)!
      if (list.length === 1) this.#byHash.delete(entry.hash)
      else list.splice(list.indexOf(entry), 1)
      this.#count--
    }
    this.#byBlock.delete(block)
  }

  #make(pipeline: Pipeline, tensors: readonly Tensor[], shared: boolean, hash: number): GPUBindGroup {
    if (this.#count >= MAX_GROUPS) this.#clear()
    const blocks = tensors.map(({ memory }) => (memory as GpuMemory).block)
    const offsets = tensors.map(({ byteOffset }) => byteOffset)
    const sizes = tensors.map((tensor) => boundBytes(tensor, shared))
    const { letters, scalars, name } = pipeline.spec
    const entries: GPUBindGroupEntry[] = blocks.map(({ buffer }, binding) => ({
      binding,
      resource: { buffer, offset: offsets[binding]!, size: sizes[binding] || undefined },
    }))
    const words = letters.length + scalars.length
    entries.push({ binding: blocks.length, resource: { buffer: this.#params, size: Math.ceil(words / 4) * 16 } })
    const group = this.#device.createBindGroup({ label: name, layout: pipeline.layout, entries })
    const entry = { group, pipeline, blocks, offsets, sizes, hash }
    const list = this.#byHash.get(hash)
    if (list) list.push(entry)
    else this.#byHash.set(hash, [entry])
    for (const block of blocks) {
      const known = this.#byBlock.get(block)
      if (known) known.add(entry)
      else this.#byBlock.set(block, new Set([entry]))
    }
    this.#count++
    return group
  }

  #clear(): void {
    this.#byHash.clear()
    this.#byBlock.clear()
    this.#count = 0
  }
}

/** Whole granules, for a shader may read in vectors; the next view begins at a granule, so that none overlap. */
function boundBytes({ memory, byteOffset, byteLength }: Tensor, shared: boolean): number {
  if (!shared) return 0
  const granules = Math.max(1, Math.ceil(byteLength / VIEW_ALIGNMENT)) * VIEW_ALIGNMENT
  return Math.min(granules, (memory as GpuMemory).block.bytes - byteOffset)
}

function fits(entry: Entry, pipeline: Pipeline, tensors: readonly Tensor[], shared: boolean): boolean {
  if (entry.pipeline !== pipeline) return false
  for (let i = 0; i < tensors.length; i++) {
    const { memory, byteOffset } = tensors[i]!
    if (entry.blocks[i] !== (memory as GpuMemory).block || entry.offsets[i] !== byteOffset) return false
    if (entry.sizes[i] !== boundBytes(tensors[i]!, shared)) return false
  }
  return true
}
