// The GPU back end: records kernels into one command encoder and submits them when somebody waits.
import type { Backend } from '../device.ts'
import type { KernelSpec, Sizes } from '../kernel.ts'
import type { Memory } from '../tensor.ts'
import type { FoundAdapter } from './adapter.ts'

/** WebGPU allows this many workgroups per dimension. */
const MAX_GROUPS = 65535
/** Uniform offsets are multiples of 256 bytes at most; one slot holds the parameters of one kernel. */
const SLOT_BYTES = 256
const SLOTS = 1024

interface GpuMemory extends Memory {
  readonly buffer: GPUBuffer
  readonly number: number
}

interface Pipeline {
  readonly pipeline: GPUComputePipeline
  readonly layout: GPUBindGroupLayout
}

/** Opens a device on the adapter with the largest buffers that it offers. */
export async function openWebgpu(open: FoundAdapter): Promise<Backend> {
  const { limits } = open.adapter
  const device = await open.adapter.requestDevice({
    requiredLimits: {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    },
  })
  const errors: Error[] = []
  const keep = (message: string): void => {
    errors.push(new Error(`webgpu: ${message.split('\n').join(' ')}`))
  }
  let destroyed = false
  device.onuncapturederror = ({ error }) => keep(error.message)
  device.lost.then(({ message, reason }) => {
    if (!destroyed) keep(`the device was lost (${reason}): ${message}; open it again and reload the model`)
  })
  const check = (): void => {
    if (errors.length > 0) throw errors[0]
    if (destroyed) throw new Error('webgpu: the device has been destroyed')
  }

  const ring = device.createBuffer({
    label: 'params',
    size: SLOTS * SLOT_BYTES,
    usage: GPU_USAGE.UNIFORM | GPU_USAGE.COPY_DST,
  })
  const staging = new Uint32Array((SLOTS * SLOT_BYTES) / 4)
  let slot = 0
  let encoder: GPUCommandEncoder | null = null
  let pass: GPUComputePassEncoder | null = null
  /** Allocation checks still under way; whoever waits for the device waits for them too. */
  let checks: Promise<void>[] = []
  let serial = 0
  const pipelines = new Map<string, Pipeline>()
  const groups = new Map<string, { readonly group: GPUBindGroup; readonly memories: readonly GpuMemory[] }>()
  /** Keys of the groups that hold a memory, so that freeing it forgets them. */
  const keysOf = new Map<number, Set<string>>()

  const submit = (): void => {
    if (!encoder) return
    pass?.end()
    device.queue.writeBuffer(ring, 0, staging, 0, (slot * SLOT_BYTES) / 4)
    device.queue.submit([encoder.finish()])
    encoder = pass = null
    slot = 0
  }
  const begin = (): GPUComputePassEncoder => {
    encoder ??= device.createCommandEncoder()
    pass ??= encoder.beginComputePass()
    return pass
  }

  const pipelineOf = (spec: KernelSpec): Pipeline => {
    const known = pipelines.get(spec.name)
    if (known) return known
    const layout = device.createBindGroupLayout({
      label: spec.name,
      entries: [
        ...spec.tensors.map(({ role }, binding) => ({
          binding,
          visibility: GPU_COMPUTE,
          buffer: { type: role === 'input' ? ('read-only-storage' as const) : ('storage' as const) },
        })),
        {
          binding: spec.tensors.length,
          visibility: GPU_COMPUTE,
          buffer: { type: 'uniform' as const, hasDynamicOffset: true },
        },
      ],
    })
    const pipeline = device.createComputePipeline({
      label: spec.name,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: {
        module: device.createShaderModule({ label: `${spec.name}.wgsl`, code: spec.wgsl }),
        entryPoint: 'main',
      },
    })
    const made = { pipeline, layout }
    pipelines.set(spec.name, made)
    return made
  }
  const groupOf = (spec: KernelSpec, memories: readonly GpuMemory[], layout: GPUBindGroupLayout): GPUBindGroup => {
    const key = `${spec.name} ${memories.map((memory) => memory.number).join(' ')}`
    const known = groups.get(key)
    if (known) return known.group
    const group = device.createBindGroup({
      label: spec.name,
      layout,
      entries: [
        ...memories.map(({ buffer }, binding) => ({ binding, resource: { buffer } })),
        {
          binding: memories.length,
          resource: { buffer: ring, size: Math.ceil((spec.letters.length + spec.scalars.length) / 4) * 16 },
        },
      ],
    })
    groups.set(key, { group, memories })
    for (const { number } of memories) keysOf.set(number, (keysOf.get(number) ?? new Set()).add(key))
    return group
  }

  const settleChecks = async (): Promise<void> => {
    const pending = checks
    checks = []
    await Promise.all(pending)
  }
  const done = async (): Promise<void> => {
    check()
    submit()
    await settleChecks()
    await open.wait(device.queue.onSubmittedWorkDone())
    check()
  }

  return {
    kind: 'webgpu',
    name: open.software ? 'webgpu:software' : 'webgpu',
    description: `WebGPU, ${open.description}`,
    maxTensorBytes: Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize),
    allocate(byteLength, label): GpuMemory {
      check()
      device.pushErrorScope('out-of-memory')
      const buffer = device.createBuffer({
        label,
        // Whole vectors of four words, as which the copy kernel binds it.
        size: Math.ceil(byteLength / 16) * 16,
        usage: GPU_USAGE.STORAGE | GPU_USAGE.COPY_SRC | GPU_USAGE.COPY_DST,
      })
      checks.push(
        device.popErrorScope().then(
          (error) => {
            if (error)
              keep(
                `${label}: no memory for ${byteLength} bytes (${error.message}); open the device again and use smaller batches`,
              )
          },
          (error: Error) => {
            if (!destroyed) keep(error.message)
          },
        ),
      )
      return { buffer, byteLength, number: serial++ }
    },
    free(memory) {
      const { buffer, number } = memory as GpuMemory
      if (destroyed) return
      submit()
      for (const key of keysOf.get(number) ?? []) {
        for (const other of groups.get(key)!.memories)
          if (other.number !== number) keysOf.get(other.number)?.delete(key)
        groups.delete(key)
      }
      keysOf.delete(number)
      buffer.destroy()
    },
    write(memory, byteOffset, bytes) {
      check()
      submit()
      const { buffer } = memory as GpuMemory
      const whole = bytes.length & ~3
      const queue = device.queue
      if (whole > 0) queue.writeBuffer(buffer, byteOffset, bytes as Uint8Array<ArrayBuffer>, 0, whole)
      if (whole < bytes.length) {
        const tail = new Uint8Array(4)
        tail.set(bytes.subarray(whole))
        queue.writeBuffer(buffer, byteOffset + whole, tail)
      }
    },
    async read(memory, byteLength) {
      check()
      const size = Math.max(4, Math.ceil(byteLength / 4) * 4)
      const target = device.createBuffer({ label: 'read', size, usage: GPU_USAGE.MAP_READ | GPU_USAGE.COPY_DST })
      try {
        pass?.end()
        pass = null
        encoder ??= device.createCommandEncoder()
        encoder.copyBufferToBuffer((memory as GpuMemory).buffer, 0, target, 0, size)
        submit()
        await open.wait(target.mapAsync(GPU_MAP_READ)).catch((error: Error) => {
          if (errors.length === 0) keep(error.message)
        })
        await settleChecks()
        check()
        const copy = target.getMappedRange().slice(0, byteLength)
        target.unmap()
        return copy
      } finally {
        target.destroy()
      }
    },
    run(spec, memories, words, sizes) {
      check()
      const { pipeline, layout } = pipelineOf(spec)
      const group = groupOf(spec, memories as GpuMemory[], layout)
      if (slot === SLOTS) submit()
      staging.set(words, (slot * SLOT_BYTES) / 4)
      const compute = begin()
      compute.setPipeline(pipeline)
      compute.setBindGroup(0, group, [slot * SLOT_BYTES])
      compute.dispatchWorkgroups(...grid(spec, sizes))
      slot++
    },
    done,
    async destroy() {
      if (destroyed) return
      submit()
      await device.queue.onSubmittedWorkDone().catch(() => {})
      destroyed = true
      device.destroy()
      await device.lost
      open.release()
    },
  }
}

/** Workgroups of a call; a one-dimensional grid that is too long is folded into x and y, as every such kernel expects. */
function grid(spec: KernelSpec, sizes: Sizes): [number, number, number] {
  const [x = 1, y = 1, z = 1] = spec.dispatch(sizes)
  if (x <= MAX_GROUPS && y <= MAX_GROUPS && z <= MAX_GROUPS) return [x, y, z]
  if (y === 1 && z === 1) {
    const rows = Math.ceil(x / MAX_GROUPS)
    if (rows <= MAX_GROUPS) return [Math.ceil(x / rows), rows, 1]
  }
  throw new RangeError(`${spec.name}: a grid of ${x} x ${y} x ${z} workgroups exceeds WebGPU's ${MAX_GROUPS} a side`)
}

// Constants of the WebGPU standard; as globals they exist in browsers only.
const GPU_USAGE = { MAP_READ: 0x1, COPY_SRC: 0x4, COPY_DST: 0x8, UNIFORM: 0x40, STORAGE: 0x80 }
const GPU_MAP_READ = 0x1
const GPU_COMPUTE = 0x4
