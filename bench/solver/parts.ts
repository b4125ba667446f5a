// What every part of the solver's benchmark gets and gives.
import type { DeviceKind } from '../../src/device/open.ts'
import type { FindProgram } from './references.ts'

export interface PartOptions {
  /** Overrides of the part's own size, for a quick look. */
  readonly rows?: number
  readonly columns?: number
  /** How many of the 19 levels, where the part fits several. */
  readonly levels?: number
  readonly threads?: number
  /** Where the large products of scale and gram run. */
  readonly device: DeviceKind
  /** Attributes of the part `attributes`, 1 to 19. */
  readonly attributes: number
  /** Whether every level of a large fit gets its independent certificate, rather than one. */
  readonly checkAll: boolean
  /** Longest time for one fit by a reference, in milliseconds. */
  readonly limitMs: number
  readonly findProgram: FindProgram
  /** Model directories beside the embedded one. */
  readonly models: readonly string[]
}

export interface PartResult {
  readonly title: string
  readonly head: readonly string[]
  readonly lines: readonly (readonly string[])[]
  readonly notes: readonly string[]
  /** For results and programs. */
  readonly record: Record<string, unknown>
}

/** A time for people. */
export function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1000).toPrecision(3)} s`
}

export function share(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(1)} %`
}
