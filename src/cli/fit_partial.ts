// The finished levels of a fit that is not done, kept in a file beside its target so that `--resume` can go on.
import { stat, unlink } from 'node:fs/promises'
import about from '../../package.json' with { type: 'json' }
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { isObject, parseJson, printable, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../files/safetensors.ts'
import type { ChosenAlpha, LevelFit } from './fit_solver.ts'
import { note } from './output.ts'

/** Everything that the bits of a fit depend on. */
export interface Settings {
  readonly attributes: readonly string[]
  readonly levels: readonly number[]
  readonly alpha: number | 'auto'
  readonly intercept: boolean
  readonly tolerance: number
  readonly nonCrossing: boolean
  readonly rows: number
  readonly columns: number
  /** Names of the feature columns, where the file has them. */
  readonly names: readonly string[] | null
  readonly bytes: number
  readonly features: string
  readonly labels: string
}

export type AttributeFit = { readonly attribute: string } & LevelFit

/** What is finished: the levels of the first attribute, then of the second, and so on. */
export interface Finished {
  /** [M K, D], row = attribute * K + level; zeros where it is not finished. */
  readonly weight: Float32Array
  /** [M K] */
  readonly bias: Float32Array | null
  readonly fits: AttributeFit[]
  /** Of the first attributes, where they are chosen by cross-validation. */
  readonly alphas: ChosenAlpha[]
}

/** Nothing finished yet. */
export function nothingFinished({ attributes, levels, columns, intercept }: Settings): Finished {
  const outputs = attributes.length * levels.length
  return {
    weight: new Float32Array(outputs * columns),
    bias: intercept ? new Float32Array(outputs) : null,
    fits: [],
    alphas: [],
  }
}

/** The file that belongs to a target. */
export function partialName(out: string): string {
  return `${out}.partial`
}

export async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

// Small fits should not pay for keeping what they would soon have again.
const SAVE_MS = 2000

export interface Keeper {
  /** Says that something was finished; saves now and then, while the fit goes on. */
  touch(): void
  /** Saves what is not saved yet. Gives whether the file holds anything of this fit. */
  save(): Promise<boolean>
  /** Removes the file. */
  remove(): Promise<void>
}

/** Keeps `finished` in the file at `path`. A file that cannot be written is reported once and is no reason to stop. */
export function keepFinished(path: string, settings: Settings, finished: Finished): Keeper {
  const size = () => finished.fits.length + finished.alphas.length
  let [saved, at] = [size(), performance.now()]
  let writing: Promise<void> | null = null
  let failed = false
  const write = async () => {
    const now = size()
    try {
      await writeFileAtomic(path, encode(settings, finished))
      saved = now
    } catch (error) {
      if (!failed) note(`note: ${(error as Error).message}; --resume will not have what is finished now`)
      failed = true
    }
    at = performance.now()
    writing = null
  }
  return {
    touch() {
      if (writing === null && performance.now() - at >= SAVE_MS) writing = write()
    },
    async save() {
      await writing
      if (saved < size()) await write()
      return saved > 0
    },
    async remove() {
      await writing
      await unlink(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') note(`note: ${printable(path)} cannot be removed (${error.code})`)
      })
    },
  }
}

function encode(settings: Settings, { weight, bias, fits, alphas }: Finished): Uint8Array[] {
  const [count, { columns }] = [fits.length, settings]
  const tensors: TensorData[] = [
    { name: 'weight', dtype: 'F32', shape: [count, columns], data: weight.subarray(0, count * columns) },
  ]
  if (bias) tensors.push({ name: 'bias', dtype: 'F32', shape: [count], data: bias.subarray(0, count) })
  const metadata = { pinball: about.version, settings, fits, alphas }
  return encodeSafetensors(
    tensors,
    Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, JSON.stringify(value)])),
  )
}

/** Reads what an earlier run with the same settings has finished. Throws where settings differ, and names the first. */
export async function readFinished(path: string, settings: Settings): Promise<Finished> {
  const source = await openFile(path)
  try {
    const { tensors, metadata } = await openSafetensors(source)
    const parsed = (key: string) => parseJson(metadata[key] ?? 'null', `${path}: ${key}`)
    const damaged = (what: string) => new Error(`${path}: ${what}; remove the file or leave out --resume`)
    const [then, fits, alphas] = [parsed('settings'), parsed('fits'), parsed('alphas')]
    const version = parsed('pinball')
    if (typeof version !== 'string' || !isObject(then) || !Array.isArray(fits) || !Array.isArray(alphas)) {
      throw damaged('is not what "pinball fit" keeps of a fit')
    }
    // Another version may take other steps, and then the levels would not be those of one fit.
    if (version !== about.version) throw damaged(`was begun by version ${show(version)}, this is ${about.version}`)
    compare(then, settings, path)
    const { attributes, levels, columns } = settings
    const inOrder = (fit: unknown, i: number) =>
      isFit(fit, attributes[Math.floor(i / levels.length)], levels[i % levels.length])
    if (!fits.every(inOrder)) throw damaged('its levels are not those of its settings')
    if (alphas.length > attributes.length || !alphas.every(isChosen)) throw damaged('its alphas are not numbers')
    const finished = nothingFinished(settings)
    for (const [name, into, width] of [
      ['weight', finished.weight, columns],
      ['bias', finished.bias, 1],
    ] as const) {
      const info = tensors.get(name)
      if (!info !== !into || (info && (info.dtype !== 'F32' || info.end - info.begin !== 4 * fits.length * width))) {
        throw damaged(`its tensor ${show(name)} does not hold ${fits.length} levels`)
      }
      if (info && into) into.set(await readTensorF32(info))
    }
    finished.fits.push(...(fits as AttributeFit[]))
    finished.alphas.push(...(alphas as ChosenAlpha[]))
    return finished
  } finally {
    await source.close()
  }
}

const NUMBERS = ['level', 'objective', 'dual', 'gap', 'nonzeros', 'iterations', 'ms']

function isFit(fit: unknown, attribute: string | undefined, level: number): fit is AttributeFit {
  if (!isObject(fit) || attribute === undefined || fit.attribute !== attribute || fit.level !== level) return false
  return (
    typeof fit.status === 'string' &&
    typeof fit.method === 'string' &&
    NUMBERS.every((key) => typeof fit[key] === 'number')
  )
}

function isChosen(value: unknown): value is ChosenAlpha {
  return isObject(value) && typeof value.alpha === 'number' && value.alpha >= 0 && Array.isArray(value.path)
}

const CALLED: Record<keyof Settings, string> = {
  attributes: 'the labels',
  levels: '--levels',
  alpha: '--alpha',
  intercept: '--intercept',
  tolerance: '--tolerance',
  nonCrossing: '--non-crossing',
  rows: 'a number of feature rows of',
  columns: 'a number of feature columns of',
  names: 'the feature columns',
  bytes: 'a size of the features in bytes of',
  features: 'features with the SHA-256',
  labels: 'labels with the SHA-256',
}

function compare(then: Record<string, unknown>, now: Settings, path: string): void {
  for (const [key, called] of Object.entries(CALLED)) {
    const value = now[key as keyof Settings]
    if (JSON.stringify(then[key]) === JSON.stringify(value)) continue
    const [before, after] = [show(then[key]), show(value)]
    throw new Error(
      `${printable(path)}: was begun with ${called} ${before}, now it is ${after}; go on as it was begun, or leave out --resume`,
    )
  }
}
