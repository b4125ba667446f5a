// What WASM and WebGPU each implement, and what they hand out: prepared calls, counts, times.
import type { KernelSpec, Sizes } from './kernel.ts'
import type { Memory, Tensor } from './tensor.ts'

/** One checked call. What it holds belongs to the caller and may change after the back end returns. */
export interface Call {
  readonly spec: KernelSpec
  /** In the order of the header. */
  readonly tensors: readonly Tensor[]
  /** Letters and scalars as 32-bit words, in the order of Params. */
  readonly words: Uint32Array
  readonly sizes: Sizes
  /** Whether tensors of the call share memory. */
  readonly shared: boolean
}

/** A call that can be recorded again. */
export interface Prepared {
  /** Its own copy of the words: what stands here is what the next `record` uses. */
  readonly words: Uint32Array
  record(): void
  /** To be called after scalars have changed, with all sizes. */
  resize(sizes: Sizes): void
}

/** Counts of a device, for tests, benchmarks and whoever looks for a leak. */
export interface Statistics {
  /** Tensors that are alive, views not counted, and their bytes. */
  readonly tensors: number
  readonly bytes: number
  /** Bytes kept for later tensors: freed GPU buffers, or the free part of WASM memory. */
  readonly keptBytes: number
  /** GPU buffers that exist for tensors, kept ones included; 0 on the CPU. */
  readonly buffers: number
  readonly bindGroups: number
  readonly pipelines: number
  /** Kernels recorded since the device was opened. */
  readonly calls: number
  /** Command buffers submitted to the GPU; 0 on the CPU. */
  readonly submits: number
}

/** When a call ran: milliseconds on the GPU's own clock, or on that of `performance.now()`. */
export interface CallTimes {
  readonly kernel: string
  /** Letters and scalars. */
  readonly sizes: Sizes
  readonly begin: number
  readonly end: number
}

/** Hears of every call once it has run, in the order of the calls. */
export interface Profiler {
  call(times: CallTimes): void
}

/** What WASM and WebGPU each implement. Everything is executed in the order of the calls. */
export interface Backend {
  readonly kind: 'wasm' | 'webgpu'
  /** 'wasm', 'webgpu' or 'webgpu:software'. */
  readonly name: string
  readonly description: string
  /** Largest tensor in bytes. */
  readonly maxTensorBytes: number
  /** Optional features of WebGPU that are switched on. */
  readonly features: readonly string[]
  allocate(byteLength: number, label: string): Memory
  free(memory: Memory): void
  write(memory: Memory, byteOffset: number, bytes: Uint8Array): void
  read(memory: Memory, byteOffset: number, byteLength: number): Promise<ArrayBuffer>
  run(call: Call): void
  prepare(call: Call): Prepared
  /** Whether the kernel can run here. */
  supports(spec: KernelSpec): boolean
  /** Times every call from now on, or none; throws where that is not possible. */
  profile(profiler: Profiler | null): void
  statistics(): Statistics
  done(): Promise<void>
  destroy(): Promise<void>
}
