// Reads the files of test/fixtures, in Node from the disk and in a browser from the folder `fixtures` beside the page.
import {
  encodeSafetensors,
  openModelTensors,
  openSafetensors,
  readTensor,
  readTensorF32,
  type TensorData,
  type TensorInfo,
} from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles, memorySource } from '../src/files/source.ts'

const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined

/** Reads `test/fixtures/<path>`; throws where it is missing. */
export async function fixture(path: string): Promise<Uint8Array> {
  if (inNode) {
    // A name that a bundler for browsers does not see as an import.
    const name = 'node:fs/promises'
    const { readFile } = (await import(name)) as typeof import('node:fs/promises')
    return new Uint8Array(await readFile(new URL(`fixtures/${path}`, import.meta.url)))
  }
  const response = await fetch(new URL(`fixtures/${path}`, location.href))
  if (!response.ok) throw new Error(`fixture: ${response.url} must be served beside the page, got ${response.status}`)
  return new Uint8Array(await response.arrayBuffer())
}

/** Reads a JSON file of test/fixtures. */
export async function fixtureJson<T>(path: string): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await fixture(path))) as T
}

/** Names of the model directories in `folder` (llama, qrm), as its index.json lists them. */
export async function fixtureModels(folder: string): Promise<string[]> {
  return Object.keys(await fixtureJson<Record<string, string[]>>(`${folder}/index.json`))
}

/** A model directory in memory, e.g. `llama/gqa`, without what it is expected to give. */
export async function fixtureModel(path: string): Promise<ModelFiles> {
  const [folder, name] = path.split('/')
  const index = await fixtureJson<Record<string, string[]>>(`${folder}/index.json`)
  const files = index[name]?.filter((file) => file !== 'expected.safetensors')
  if (!files) throw new Error(`fixture: ${path} is not in ${folder}/index.json`)
  return memoryFiles(
    path,
    Object.fromEntries(await Promise.all(files.map(async (file) => [file, await fixture(`${path}/${file}`)]))),
  )
}

/** What `changedModel` changes of a fixture. */
export interface ModelChanges {
  config?(json: Record<string, unknown>): void
  tensors?(tensors: Map<string, TensorData>): void
}

/** A fixture's model directory with another config.json or other tensors, all of them in one model.safetensors. */
export async function changedModel(path: string, changes: ModelChanges): Promise<ModelFiles> {
  const files = await fixtureModel(path)
  const config = await fixtureJson<Record<string, unknown>>(`${path}/config.json`)
  changes.config?.(config)
  const tensors = new Map<string, TensorData>()
  for (const [name, info] of await openModelTensors(files)) {
    tensors.set(name, { name, dtype: info.dtype, shape: info.shape, data: await readTensor(info) })
  }
  changes.tensors?.(tensors)
  const chunks = encodeSafetensors([...tensors.values()])
  return memoryFiles(path, {
    'config.json': new TextEncoder().encode(JSON.stringify(config)),
    'model.safetensors': new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()),
  })
}

/** Sequences of token ids and the hidden states [T, D] that transformers gives each, by `test/fixtures/make.py`. */
export interface ExpectedHidden {
  readonly sequences: Uint32Array[]
  readonly hidden: Float32Array[]
}

/** Reads tensors `tokens_<i>` and `hidden_<i>` of a safetensors file. */
export async function readExpectedHidden(tensors: ReadonlyMap<string, TensorInfo>): Promise<ExpectedHidden> {
  const sequences: Uint32Array[] = []
  const hidden: Float32Array[] = []
  for (let i = 0; tensors.has(`tokens_${i}`); i++) {
    sequences.push(new Uint32Array((await readTensor(tensors.get(`tokens_${i}`)!)).buffer))
    hidden.push(await readTensorF32(tensors.get(`hidden_${i}`)!))
  }
  if (sequences.length === 0) throw new Error('fixture: the file of expected values holds no sequence')
  return { sequences, hidden }
}

/** Opens `expected.safetensors` of a fixture's directory. */
export async function expectedTensors(path: string): Promise<Map<string, TensorInfo>> {
  const source = memorySource(`${path}/expected.safetensors`, await fixture(`${path}/expected.safetensors`))
  return (await openSafetensors(source)).tensors
}
