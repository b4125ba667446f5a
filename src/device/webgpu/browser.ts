// WebGPU of a browser or of any runtime that has `navigator.gpu` (`#gpu` outside Node).

import { type AdapterKind, type AdapterOptions, type FoundAdapter, foundAdapter, isSoftware } from './adapter.ts'

function gpu(): GPU | undefined {
  return globalThis.navigator?.gpu
}

/**
 * Finds an adapter, or null where there is none of that kind. `hardware` never gives a software adapter. The options
 * are Dawn's and change nothing here.
 */
export async function requestAdapter(kind: AdapterKind, _options: AdapterOptions = {}): Promise<FoundAdapter | null> {
  const adapter =
    kind === 'hardware'
      ? await gpu()?.requestAdapter({ powerPreference: 'high-performance' })
      : ((await gpu()?.requestAdapter({ forceFallbackAdapter: true })) ?? (await gpu()?.requestAdapter()))
  if (!adapter || isSoftware(adapter.info) !== (kind === 'software')) return null
  return foundAdapter(adapter, gpu(), () => {})
}

/** Says in a few words, for an error message, why requestAdapter() gave null. */
export async function explainMissing(kind: AdapterKind): Promise<string> {
  if (!gpu()) {
    const insecure = globalThis.isSecureContext === false
    return `navigator.gpu is missing${insecure ? ', since this page is not served over https' : ''}; use wasm`
  }
  return `navigator.gpu.requestAdapter() gave no ${kind} adapter; use wasm`
}
