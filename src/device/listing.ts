// The devices that can compute here, with their limits and features.
import { explainMissing, requestAdapter } from '#gpu'
import { cores, threadsSupported } from '#threads'

export interface DeviceListing {
  /** What `openDevice` takes. */
  readonly device: 'wasm' | 'webgpu' | 'webgpu:software'
  readonly available: boolean
  /** Name of the adapter, or why there is none. */
  readonly description: string
  readonly features: readonly string[]
  readonly limits: Readonly<Record<string, number>>
}

/** Lists a hardware GPU, a software one and the CPU, in this order, also those that are missing. */
export async function listDevices(): Promise<DeviceListing[]> {
  return [await adapter('webgpu'), await adapter('webgpu:software'), wasm()]
}

function wasm(): DeviceListing {
  const threads = threadsSupported() ? cores() : 1
  return {
    device: 'wasm',
    available: true,
    description: `WebAssembly SIMD on the CPU, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
    features: ['simd128', ...(threadsSupported() ? ['shared memory'] : [])],
    limits: { threads },
  }
}

async function adapter(device: 'webgpu' | 'webgpu:software'): Promise<DeviceListing> {
  const kind = device === 'webgpu' ? 'hardware' : 'software'
  const missing = (description: string) => ({ device, available: false, description, features: [], limits: {} })
  try {
    const found = await requestAdapter(kind)
    if (found === null) return missing(await explainMissing(kind))
    const { description, features, limits } = found
    found.release()
    return { device, available: true, description, features, limits }
  } catch (error) {
    return missing((error as Error).message)
  }
}
