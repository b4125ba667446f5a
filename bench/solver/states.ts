// Made-up hidden states of a language model, and ratings for them: the data of the solver's benchmarks.
//
//   x = bf16(gain * (mean + loadings z + noise) / its root mean square)      z: columns / 4 factors
//
// Variances of the factors fall as 1 / k, gains are log-normal, a few columns are massive, all values together have root mean
// square 2. Row i depends on the seed and i alone. Real states differ, but have these traits, and they set a solver's cost.

import { closeSync, existsSync, mkdirSync, openSync, readSync, renameSync, statSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openDevice } from '../../src/device/open.ts'
import { widenBF16 } from '../../src/files/safetensors.ts'

/** Part of the cached files' names: to be raised when the values change. */
const VERSION = 1
const CACHE = fileURLToPath(new URL('../../.cache/solver/', import.meta.url))
const BLOCK_ROWS = 1024

const RMS = 2
/** Root mean squares of the massive columns, one in 1024 columns and at least one. */
const MASSIVE = [15, 52, 22, 35]
/** Massive columns have no more than this share of all squares; matters below 128 columns. */
const MASSIVE_SHARE = 0.5
const MEAN_DEVIATION = 0.5
const NOISE_VARIANCE = 0.02
const GAIN_DEVIATION = 0.4

export interface StatesShape {
  readonly rows: number
  readonly columns: number
  readonly seed?: number
}

/** bf16 bits [rows, columns], row-major. */
export interface States {
  readonly data: Uint16Array<ArrayBuffer>
  readonly rows: number
  readonly columns: number
}

export const RATINGS = ['five', 'ten', 'binary', 'continuous', 'noise'] as const
/** five and ten grades, 0 or 1, a normal variable around 1/2, five grades unrelated to the states. */
export type RatingType = (typeof RATINGS)[number]

export interface RatingOptions extends StatesShape {
  readonly type?: RatingType
  /** Attributes of one seed of states differ in this. */
  readonly attribute?: number
}

/** Which of the independent streams of random numbers a number comes from. */
const STREAM = { mean: 1, loadings: 2, gain: 3, massive: 4, factors: 5, noise: 6, direction: 7, rating: 8 }

const NORMAL_BITS = 16
const normalTable = tabulateNormal(2 ** NORMAL_BITS)

/** Quantiles of the normal distribution at (i + 1/2) / size, from its integrated density. */
function tabulateNormal(size: number): Float32Array {
  const table = new Float32Array(size)
  const step = 1 / 8192
  let below = 0
  let index = 0
  for (let x = -6; index < size && x < 6; x += step) {
    const share = (step * Math.exp(-((x + step / 2) ** 2) / 2)) / Math.sqrt(2 * Math.PI)
    while (index < size && (index + 0.5) / size <= below + share) {
      table[index] = x + (step * ((index + 0.5) / size - below)) / share
      index++
    }
    below += share
  }
  return table
}

/** Scrambles a 32-bit word: the finaliser of MurmurHash3 after one step of a Weyl sequence. */
function mix(word: number): number {
  let h = (word + 0x9e3779b9) | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

function keyOf(seed: number, stream: number, row = 0): number {
  return mix(mix(mix(seed) ^ stream) ^ row)
}

/** Fills `out[from .. from + count)` with normal variables that depend on the key and the place alone. */
function fillNormal(out: Float32Array, key: number, from = 0, count = out.length): void {
  const pairs = count >>> 1
  for (let pair = 0; pair < pairs; pair++) {
    const word = mix(key ^ mix(pair))
    out[from + 2 * pair] = normalTable[word & 0xffff]
    out[from + 2 * pair + 1] = normalTable[word >>> 16]
  }
  if (count & 1) out[from + count - 1] = normalTable[mix(key ^ mix(pairs)) & 0xffff]
}

function normals(count: number, key: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count)
  fillNormal(out, key)
  return out
}

const factorCount = (columns: number): number => Math.max(1, columns >>> 2)

/** Makes blocks of rows; the product with the loadings runs on the CPU device. `close` when done. */
export interface StatesMaker {
  block(firstRow: number, count: number): Promise<Uint16Array<ArrayBuffer>>
  close(): Promise<void>
}

/** Opens a maker of states; `threads` does not change the values. */
export async function openStates(columns: number, seed = 1, threads?: number): Promise<StatesMaker> {
  const factors = factorCount(columns)
  const mean = normals(columns, keyOf(seed, STREAM.mean)).map((value) => MEAN_DEVIATION * value)
  const loadings = normals(columns * factors, keyOf(seed, STREAM.loadings))
  let total = 0
  for (let k = 0; k < factors; k++) total += 1 / (k + 1)
  for (let j = 0; j < columns; j++)
    for (let k = 0; k < factors; k++) loadings[j * factors + k] *= Math.sqrt((1 - NOISE_VARIANCE) / (total * (k + 1)))
  const gain = makeGains(columns, seed, mean, loadings)
  const device = await openDevice('wasm', { threads })
  const weight = device.tensor([columns, factors], { data: loadings })
  const noise = new Float32Array(columns)

  return {
    async block(firstRow, count) {
      const z = new Float32Array(count * factors)
      for (let i = 0; i < count; i++) fillNormal(z, keyOf(seed, STREAM.factors, firstRow + i), i * factors, factors)
      const x = device.tensor([count, factors], { data: z })
      const y = device.tensor([count, columns])
      device.run('linear', { x, weight, y })
      const values = await y.readF32()
      x.destroy()
      y.destroy()
      for (let i = 0; i < count; i++) {
        fillNormal(noise, keyOf(seed, STREAM.noise, firstRow + i))
        finishRow(values.subarray(i * columns, (i + 1) * columns), mean, noise, gain)
      }
      return roundToBf16(values)
    },
    async close() {
      weight.destroy()
      await device.destroy()
    },
  }
}

/** Gains [columns] that give the massive columns their size and all values together root mean square 2. */
function makeGains(columns: number, seed: number, mean: Float32Array, loadings: Float32Array): Float64Array {
  const factors = factorCount(columns)
  const squares = new Float64Array(columns)
  for (let j = 0; j < columns; j++) {
    squares[j] = mean[j] ** 2 + NOISE_VARIANCE
    for (let k = 0; k < factors; k++) squares[j] += loadings[j * factors + k] ** 2
  }
  const average = squares.reduce((sum, square) => sum + square, 0) / columns
  const gain = Float64Array.from(normals(columns, keyOf(seed, STREAM.gain)), (value) =>
    Math.exp(GAIN_DEVIATION * value),
  )
  const massive = massiveColumns(columns, seed)
  const all = RMS ** 2 * columns
  const wanted = massive.reduce((sum, _, m) => sum + MASSIVE[m % MASSIVE.length] ** 2, 0)
  const shrink = Math.sqrt(Math.min(1, (MASSIVE_SHARE * all) / wanted))
  let ordinary = 0
  for (let j = 0; j < columns; j++) if (!massive.includes(j)) ordinary += (gain[j] ** 2 * squares[j]) / average
  const scale = Math.sqrt((all - wanted * shrink ** 2) / Math.max(ordinary, 1e-30))
  for (let j = 0; j < columns; j++) gain[j] *= scale
  massive.forEach((j, m) => {
    gain[j] = shrink * MASSIVE[m % MASSIVE.length] * Math.sqrt(average / squares[j])
  })
  return gain
}

/** Which columns are massive: one in 1024, at least one. */
export function massiveColumns(columns: number, seed = 1): number[] {
  const chosen = new Set<number>()
  const count = Math.max(1, Math.round(columns / 1024))
  for (let i = 0; chosen.size < count; i++) chosen.add((mix(keyOf(seed, STREAM.massive) ^ mix(i)) >>> 0) % columns)
  return [...chosen]
}

function finishRow(row: Float32Array, mean: Float32Array, noise: Float32Array, gain: Float64Array): void {
  const deviation = Math.sqrt(NOISE_VARIANCE)
  let squares = 0
  for (let j = 0; j < row.length; j++) {
    const value = row[j] + mean[j] + deviation * noise[j]
    row[j] = value
    squares += value * value
  }
  const scale = 1 / Math.sqrt(squares / row.length)
  for (let j = 0; j < row.length; j++) row[j] *= gain[j] * scale
}

/** Rounds to the nearest bf16, ties to even. */
function roundToBf16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(values.length)
  for (let i = 0; i < out.length; i++) out[i] = (words[i] + 0x7fff + ((words[i] >>> 16) & 1)) >>> 16
  return out
}

/** bf16 bits as the f32 numbers they mean. */
export function widen(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const values = new Float32Array(bits.length)
  widenBF16(bits, values)
  return values
}

/** States in memory. */
export async function makeStates({ rows, columns, seed = 1 }: StatesShape, threads?: number): Promise<States> {
  const maker = await openStates(columns, seed, threads)
  const data = new Uint16Array(rows * columns)
  for (let row = 0; row < rows; row += BLOCK_ROWS)
    data.set(await maker.block(row, Math.min(BLOCK_ROWS, rows - row)), row * columns)
  await maker.close()
  return { data, rows, columns }
}

/** Where the cached states of this shape are or would be; below .cache/. */
export function cachePath({ rows, columns, seed = 1 }: StatesShape): string {
  return `${CACHE}states-${VERSION}-${rows}x${columns}-${seed}.bf16`
}

/** Whether the cached file is there and whole. */
export function isCached(shape: StatesShape): boolean {
  const path = cachePath(shape)
  return existsSync(path) && statSync(path).size === 2 * shape.rows * shape.columns
}

/** Writes the states to the cache block by block; `onBlock` hears of the rows done. */
export async function cacheStates(
  shape: StatesShape,
  threads?: number,
  onBlock?: (rows: number) => void,
): Promise<string> {
  const path = cachePath(shape)
  mkdirSync(dirname(path), { recursive: true })
  const maker = await openStates(shape.columns, shape.seed, threads)
  const file = openSync(`${path}.tmp`, 'w')
  for (let row = 0; row < shape.rows; row += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, shape.rows - row)
    writeSync(file, new Uint8Array((await maker.block(row, count)).buffer))
    onBlock?.(row + count)
  }
  closeSync(file)
  await maker.close()
  renameSync(`${path}.tmp`, path)
  return path
}

/** Rows [firstRow, firstRow + count) of a file of bf16 bits. */
export function readRows(path: string, columns: number, firstRow: number, count: number): Uint16Array<ArrayBuffer> {
  const out = new Uint8Array(2 * count * columns)
  const file = openSync(path, 'r')
  let done = 0
  while (done < out.length) {
    const position = 2 * firstRow * columns + done
    const read = readSync(file, out, done, Math.min(2 ** 28, out.length - done), position)
    if (read === 0) throw new Error(`bench: ${path} ends at byte ${position}, before row ${firstRow + count}`)
    done += read
  }
  closeSync(file)
  return new Uint16Array(out.buffer)
}

/** Shares of the ratings below each grade but the lowest: skewed as human ratings are, or even. */
const FIVE = [0.05, 0.15, 0.4, 0.8]
const TEN = Array.from({ length: 9 }, (_, i) => (i + 1) / 10)
const BINARY = [0.45]

/**
 * Ratings [rows] in [0, 1] of the states of the same seed: half of their latent variance is a direction of the factors, half is
 * noise; grades are cut from the latent value, grade g of n is (g + 1/2) / n, as HelpSteer's are.
 */
export function makeRatings({ rows, columns, seed = 1, type = 'five', attribute = 0 }: RatingOptions): Float32Array {
  const factors = factorCount(columns)
  const direction = normals(factors, keyOf(seed, STREAM.direction, attribute))
  let squares = 0
  for (let k = 0; k < factors; k++) {
    direction[k] /= Math.sqrt(k + 1)
    squares += direction[k] ** 2
  }
  const signalShare = type === 'noise' ? 0 : Math.sqrt(0.5 / squares)
  const noiseShare = type === 'noise' ? 1 : Math.sqrt(0.5)
  const noise = normals(rows, keyOf(seed, STREAM.rating, attribute))
  const z = new Float32Array(factors)
  const latent = new Float32Array(rows)
  for (let i = 0; i < rows; i++) {
    fillNormal(z, keyOf(seed, STREAM.factors, i))
    let signal = 0
    for (let k = 0; k < factors; k++) signal += z[k] * direction[k]
    latent[i] = signalShare * signal + noiseShare * noise[i]
  }
  if (type === 'continuous') return latent.map((value) => 0.5 + 0.15 * value)
  const cuts = (type === 'ten' ? TEN : type === 'binary' ? BINARY : FIVE).map(
    (share) => normalTable[Math.round(share * normalTable.length)],
  )
  const grade = (value: number): number => cuts.filter((cut) => value > cut).length
  return latent.map((value) => (type === 'binary' ? grade(value) : (grade(value) + 0.5) / (cuts.length + 1)))
}
