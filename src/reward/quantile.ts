// The quantile module (assembly/quantile): one instance, and room for f64 arrays in its memory for the length of a call.
import { quantileWasm } from '../generated/quantile.ts'

type Address = number
type OfVector = (values: Address, count: number) => number
type OfVectorAnd = (values: Address, count: number, parameter: number) => number
type OfCurve = (t: Address, q: Address, points: number, at: number) => number

interface QuantileModule {
  readonly memory: WebAssembly.Memory
  heap_base(): Address
  mix(
    values: Address,
    transform: Address,
    gate: Address,
    debiased: Address,
    mixture: Address,
    score: Address,
    rows: number,
    objectives: number,
    levels: number,
    mean: number,
  ): void
  rearrange(values: Address, count: number): void
  readonly variance: OfVector
  readonly utility: OfVectorAnd
  readonly entropic: OfVectorAnd
  readonly cvar: OfVectorAnd
  extend(t: Address, q: Address, count: number): void
  readonly quantile: OfCurve
  readonly cdf: OfCurve
  readonly below: OfCurve
  readonly density: OfCurve
  readonly tail_mean: OfCurve
}

const PAGE_BYTES = 65536

let instance: QuantileModule | undefined

/** The module, compiled and instantiated at the first call. */
export function quantileModule(): QuantileModule {
  instance ??= instantiate()
  return instance
}

function instantiate(): QuantileModule {
  return new WebAssembly.Instance(new WebAssembly.Module(quantileWasm()), {}).exports as unknown as QuantileModule
}

/** Arrays in the module's memory: their addresses, and views of them that hold until the next `place`. */
export interface Placed {
  readonly at: readonly Address[]
  readonly views: readonly Float64Array[]
}

/** Copies each array into the module's memory, from its beginning; a number asks for an array of that length, not cleared. */
export function place(...arrays: readonly (ArrayLike<number> | number)[]): Placed {
  const { memory, heap_base } = quantileModule()
  const at: Address[] = []
  let end = Math.ceil(heap_base() / 16) * 16
  for (const array of arrays) {
    at.push(end)
    end += Math.ceil((8 * lengthOf(array)) / 16) * 16
  }
  const missing = end - memory.buffer.byteLength
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES))
  const views = arrays.map((array, i) => {
    const view = new Float64Array(memory.buffer, at[i], lengthOf(array))
    if (typeof array !== 'number') view.set(array)
    return view
  })
  return { at, views }
}

function lengthOf(array: ArrayLike<number> | number): number {
  return typeof array === 'number' ? array : array.length
}

/** Throws unless there is at least one value and all are finite; `name` is what the error calls them. */
export function checkFinite(values: ArrayLike<number>, name: string): void {
  if (values.length === 0) throw new Error(`${name}: must have at least one value, got none`)
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) throw new Error(`${name}: must be finite, got ${values[i]} at index ${i}`)
  }
}
