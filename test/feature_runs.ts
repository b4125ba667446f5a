// Runs of pinball features on a small model, and what they leave, for the tests of the command.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { openFile } from '../src/files/disk.ts'
import { openSafetensors, readTensor, readTensorF32 } from '../src/files/safetensors.ts'
import { qrm, WASM, type Workplace } from './command.ts'

export const MODEL = ['features', '--model', qrm, ...WASM]

/** The document of --json. */
export interface Report {
  file: string
  manifest: string
  rows: number
  labels: number
  columns: number
  tokens: number
  skipped: number | true
  rows_per_second: number | null
  tokens_per_second: number | null
  shard: number
  shards: number
}

/** Runs it to a good end. */
export async function make(place: Workplace, ...args: string[]): Promise<Report & { err: string }> {
  const { code, out, err } = await place.pinball([...MODEL, '--json', ...args])
  assert.is(code, 0, err)
  return { ...(JSON.parse(out) as Report), err }
}

/** Reads a file of features: shapes with their types, metadata, and its numbers by name. */
export async function read(place: Workplace, file: string) {
  const source = await openFile(join(place.folder, file))
  const { tensors, metadata } = await openSafetensors(source)
  const floats: Record<string, Float32Array> = {}
  const whole: Record<string, number[]> = {}
  for (const [name, info] of tensors) {
    if (info.dtype === 'I64') whole[name] = [...new BigInt64Array((await readTensor(info)).buffer)].map(Number)
    else floats[name] = await readTensorF32(info)
  }
  await source.close()
  const shapes = Object.fromEntries([...tensors].map(([name, { dtype, shape }]) => [name, [dtype, ...shape]]))
  return { shapes, metadata, floats, whole }
}

/** The objectives of heads at three levels. */
export async function fit(place: Workplace, features: string, ...more: string[]): Promise<number[]> {
  const args = ['fit', '--features', features, '--out', 'h.safetensors', '--levels', '3', '--json', ...more]
  const { code, out, err } = await place.pinball(args)
  assert.is(code, 0, err)
  return JSON.parse(out).fits.map((level: { objective: number }) => level.objective)
}

export async function manifest(place: Workplace, file: string) {
  return JSON.parse(await readFile(join(place.folder, file), 'utf8'))
}

/** Number of finished chunks of a file. */
export async function chunks(place: Workplace, file: string): Promise<number> {
  const names = await readdir(join(place.folder, `${file}.partial`)).catch(() => [])
  return names.filter((name) => name.startsWith('chunk-')).length
}
