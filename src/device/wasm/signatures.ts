// Kernels as the WASM modules know them: their numbers, and which arguments are f32.
import { kernels } from '../../generated/kernels.ts'
import type { KernelSpec } from '../kernel.ts'
import { MAX_ARGUMENTS } from './queue.ts'

/** By number. */
export const exported = Object.values(kernels).map((spec) => ({
  name: spec.name,
  floats: [
    ...spec.tensors.map(() => false),
    ...spec.letters.map(() => false),
    ...spec.scalars.map(({ type }) => type === 'f32'),
  ],
}))
for (const { name, floats } of exported)
  if (floats.length > MAX_ARGUMENTS)
    throw new Error(`${name}: ${floats.length} arguments do not fit a slot of the task queue`)

const numbers = new Map(exported.map(({ name }, index) => [name, index]))

/** Throws for a kernel that is not in the module. */
export function numberOf({ name }: KernelSpec): number {
  const number = numbers.get(name)
  if (number === undefined) throw new Error(`wasm: ${name} is not in the WebAssembly module; run npm run generate`)
  return number
}

interface Exports {
  set_scratch(address: number): void
  scratch_bytes(): number
  heap_base(): number
}

/** Compiles a module of kernels and makes an instance of it on the memory. */
export async function instantiate(bytes: BufferSource, memory: WebAssembly.Memory) {
  const module = await WebAssembly.compile(bytes)
  const instance = await WebAssembly.instantiate(module, { env: { memory, abort: () => {} } })
  return { module, exports: instance.exports as unknown as Exports & Record<string, (...values: number[]) => void> }
}
