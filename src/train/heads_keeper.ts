// Finished levels of a fit, kept in a store while the fit goes on, so that the same fit continues after a crash.
//
// Levels are kept in groups: a part `levels-FIRST-END` holds the outputs [FIRST, END) (output = attribute * K + level) as weights and
// reports; a part `alpha-M` holds the penalty that was chosen for attribute M. Where one is damaged, its levels alone are fitted again.
import { parseJson } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../files/safetensors.ts'
import type { Work } from '../files/work.ts'
import type { ChosenAlpha } from '../solver/alpha.ts'
import type { LevelFit } from '../solver/fit.ts'

export type AttributeFit = { readonly attribute: string } & LevelFit

/** What is finished of heads over M attributes at K levels. */
export interface Finished {
  /** [M K, D]; zeros where it is not finished. */
  readonly weight: Float32Array
  /** [M K]; null without an intercept. */
  readonly bias: Float32Array | null
  /** [M K]; null where it is not finished. */
  readonly fits: (AttributeFit | null)[]
  /** [M]; null where none has been chosen. */
  readonly alphas: (ChosenAlpha | null)[]
}

/** How much of a fit a store holds. */
export interface Kept {
  readonly levels: number
  readonly alphas: number
}

export interface Keeper {
  readonly kept: Kept
  /** Says that the outputs [first, end) were finished. */
  levels(first: number, end: number): void
  /** Says that a penalty was chosen. */
  alpha(attribute: number): void
  /** Saves what is not saved yet. */
  save(): Promise<void>
}

/** What the names of the parts look like. */
export const PART_NAMES = /^(levels-\d{6,}-\d{6,}|alpha-\d{6,})$/

// Small fits should not pay for keeping what they would soon have again.
const SAVE_MS = 2000

/**
 * Keeps `finished` in the parts of `work`, at most every two seconds. `onFailure` takes one line where a part cannot be written, once;
 * that is no reason to stop.
 */
export function keepFinished(work: Work, finished: Finished, onFailure: (line: string) => void): Keeper {
  const waiting = { levels: new Set<number>(), alphas: new Set<number>() }
  const count = (list: readonly unknown[]) => list.filter((entry) => entry !== null).length
  const kept = { levels: count(finished.fits), alphas: count(finished.alphas) }
  let at = performance.now()
  let writing: Promise<void> | null = null
  let failed = false
  const write = async () => {
    const [levels, alphas] = [[...waiting.levels].sort((a, b) => a - b), [...waiting.alphas]]
    try {
      for (const m of alphas) {
        await work.write(`alpha-${digits(m)}`, [new TextEncoder().encode(JSON.stringify(finished.alphas[m]))])
        waiting.alphas.delete(m)
        kept.alphas++
      }
      for (const [first, end] of runs(levels)) {
        await work.write(`levels-${digits(first)}-${digits(end)}`, encodeLevels(finished, first, end))
        for (let output = first; output < end; output++) waiting.levels.delete(output)
        kept.levels += end - first
      }
    } catch (error) {
      if (!failed) onFailure(`${(error as Error).message}; what is finished now is not kept`)
      failed = true
    }
    at = performance.now()
    writing = null
  }
  const touch = () => {
    if (writing === null && performance.now() - at >= SAVE_MS) writing = write()
  }
  return {
    kept,
    levels(first, end) {
      for (let output = first; output < end; output++) waiting.levels.add(output)
      touch()
    },
    alpha(attribute) {
      waiting.alphas.add(attribute)
      touch()
    },
    async save() {
      await writing
      if (waiting.levels.size + waiting.alphas.size > 0) await write()
    },
  }
}

/** Reads what the parts of `work` hold into `finished`. Throws where a part is sound but holds something else. */
export async function readFinished(work: Work, finished: Finished): Promise<void> {
  for (const part of work.parts()) {
    const [, first, end] = /^levels-(\d+)-(\d+)$/.exec(part) ?? []
    const [, attribute] = /^alpha-(\d+)$/.exec(part) ?? []
    if (first === undefined && attribute === undefined) continue
    const source = await work.open(part)
    try {
      if (attribute === undefined) await readLevels(source, Number(first), Number(end), finished)
      else {
        const text = new TextDecoder().decode(await source.read(0, source.byteLength))
        finished.alphas[Number(attribute)] = parseJson(text, source.name) as ChosenAlpha
      }
    } finally {
      await source.close()
    }
  }
}

function encodeLevels({ weight, bias, fits }: Finished, first: number, end: number): Uint8Array[] {
  const columns = weight.length / fits.length
  const tensors: TensorData[] = [
    {
      name: 'weight',
      dtype: 'F32',
      shape: [end - first, columns],
      data: weight.subarray(first * columns, end * columns),
    },
  ]
  if (bias) tensors.push({ name: 'bias', dtype: 'F32', shape: [end - first], data: bias.subarray(first, end) })
  return encodeSafetensors(tensors, { fits: JSON.stringify(fits.slice(first, end)) })
}

async function readLevels(
  source: Parameters<typeof openSafetensors>[0],
  first: number,
  end: number,
  { weight, bias, fits }: Finished,
): Promise<void> {
  const columns = weight.length / fits.length
  const { tensors, metadata } = await openSafetensors(source)
  const found = parseJson(metadata.fits ?? 'null', `${source.name}: fits`)
  const values = { weight: tensors.get('weight'), bias: tensors.get('bias') }
  const bytes = 4 * (end - first)
  const fit =
    Array.isArray(found) &&
    found.length === end - first &&
    end <= fits.length &&
    values.weight?.dtype === 'F32' &&
    values.weight.end - values.weight.begin === bytes * columns &&
    (bias === null || (values.bias?.dtype === 'F32' && values.bias.end - values.bias.begin === bytes))
  if (!fit) throw new Error(`${source.name}: does not hold ${end - first} levels; give --restart or another --out`)
  weight.set(await readTensorF32(values.weight!), first * columns)
  bias?.set(await readTensorF32(values.bias!), first)
  for (const [i, entry] of (found as AttributeFit[]).entries()) fits[first + i] = entry
}

/** Runs [first, end) of numbers that ascend by one. */
function runs(numbers: readonly number[]): [number, number][] {
  const found: [number, number][] = []
  for (const number of numbers) {
    const last = found[found.length - 1]
    if (last?.[1] === number) last[1]++
    else found.push([number, number + 1])
  }
  return found
}

const digits = (number: number): string => String(number).padStart(6, '0')
