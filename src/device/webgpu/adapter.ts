// What an adapter is to the rest of the engine: the same record from Dawn in Node and from a browser.

/** What to look for: a GPU, or a CPU that plays one (SwiftShader, llvmpipe, WARP), which is for tests. */
export type AdapterKind = 'hardware' | 'software'

/** Switches that only Dawn in Node knows; browsers have command line flags for them. */
export interface AdapterOptions {
  /** Timestamps in nanoseconds instead of multiples of 65 536 ns. */
  readonly exactTimestamps?: boolean
  /** False leaves out what Dawn adds to shaders: guards of loops and of indices. For measurements of our own kernels only. */
  readonly robustness?: boolean
}

/** An adapter that was found. `limits` are those of the adapter; a device gets the defaults unless it asks for more. */
export interface FoundAdapter {
  readonly adapter: GPUAdapter
  readonly software: boolean
  readonly description: string
  readonly features: string[]
  readonly limits: Record<string, number>
  /** Must live as long as the adapter's device: Dawn crashes when its instance is collected first. */
  readonly keepAlive: unknown
  /** Awaits a promise of the device in the way that leaves the most to whoever computes. */
  wait<T>(promise: Promise<T>): Promise<T>
  /** To be called once after the adapter's device is destroyed. */
  release(): void
}

// Names under which CPU rasterisers report themselves, for versions that do not set isFallbackAdapter.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b/i

/** Says whether an adapter computes on the CPU. */
export function isSoftware(info: GPUAdapterInfo): boolean {
  if (info.isFallbackAdapter) return true
  return [info.vendor, info.architecture, info.device, info.description].some((word) => SOFTWARE.test(word ?? ''))
}

/** Vendor, architecture and driver text without repetitions; browsers leave some of these empty. */
export function describeAdapter({ vendor, architecture, device, description }: GPUAdapterInfo): string {
  const words = [vendor, architecture, description || device].filter(Boolean)
  return (
    words.filter((word, i) => !words.some((other, j) => j > i && contains(other, word))).join(' ') || 'unnamed adapter'
  )
}

function contains(text: string, word: string): boolean {
  return text.toLowerCase().includes(word.toLowerCase())
}

/** Makes the record of an adapter; `keepAlive` is whatever owns it. */
export function foundAdapter(
  adapter: GPUAdapter,
  keepAlive: unknown,
  release: () => void,
  wait: FoundAdapter['wait'] = (promise) => promise,
): FoundAdapter {
  // The limits are getters of the prototype, so only a for-in loop finds them.
  const limits: Record<string, number> = {}
  for (const name in adapter.limits) {
    const value = Number(Reflect.get(adapter.limits, name))
    if (Number.isFinite(value)) limits[name] = value
  }
  return {
    adapter,
    software: isSoftware(adapter.info),
    description: describeAdapter(adapter.info),
    features: [...adapter.features].map(String).sort(),
    limits,
    keepAlive,
    wait,
    release,
  }
}
