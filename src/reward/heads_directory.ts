// Heads without a gate as a model directory: made of a file of heads, where no pairs are needed, and kept in a folder.
import { closeTensors, openModelTensors } from '../files/safetensors.ts'
import { type ModelFiles, memoryFiles, memorySource, type Source } from '../files/source.ts'
import type { Store } from '../files/store.ts'
import { openWork, WORK_FILE } from '../files/work.ts'
import { type Checkpoint, readCheckpoint } from './checkpoint.ts'
import { CALIBRATION_FILE, readCalibration } from './conformal.ts'
import { type CheckpointFile, encodeCheckpoint } from './encode.ts'
import { FITTED_FILE, readFitted } from './fitted.ts'
import { type HeadsFile, readHeadsFile } from './heads_file.ts'
import { type FixedWeights, MANIFEST_FILE, orderWeights, parseManifest } from './manifest.ts'

// Point estimates are one level.
const POINT = [0.5]

type BareHeads = Pick<HeadsFile, 'attributes' | 'levels' | 'weight' | 'bias'> &
  Partial<Pick<HeadsFile, 'transform' | 'fitted' | 'name'>>

/** Heads without a gate: attributes have fixed weights, by default the same. Throws on a weight of an attribute that is not there. */
export function headsCheckpoint(heads: BareHeads, weights: FixedWeights = 'mean'): Checkpoint {
  const { attributes, levels, weight, bias, transform = null, fitted, name = 'heads' } = heads
  orderWeights(weights, attributes, `${name}: weights`)
  return {
    layout: levels === null ? 'armorm' : 'qrm',
    config: { model_type: 'llama' },
    manifest: { ...parseManifest({}, MANIFEST_FILE), attributes, levels: levels ?? POINT, weights },
    regression: { weight, bias },
    transform,
    gate: null,
    calibration: null,
    ...(fitted && { fitted }),
  }
}

/** The name of the calibration beside a file of heads: heads.calibration.safetensors for heads.safetensors. */
export function calibrationBeside(file: string): string {
  return `${file.replace(/\.safetensors$/, '')}.${CALIBRATION_FILE}`
}

/** A file of heads as the model directory that it stands for, with the file of its calibration; in memory, nothing stays open. */
export async function headsFiles(heads: Source, calibration: Source | null = null): Promise<ModelFiles> {
  const files: Record<string, Uint8Array> = {}
  for await (const { file, chunks } of encodeCheckpoint(headsCheckpoint(await readHeadsFile(heads)))) {
    files[file] = joined(chunks)
  }
  const inside = memoryFiles(heads.name, files)
  const beside = calibration && memorySource(calibration.name, await calibration.read(0, calibration.byteLength))
  return { ...inside, open: async (file) => (file === CALIBRATION_FILE ? beside : inside.open(file)) }
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(chunks.reduce((sum, { byteLength }) => sum + byteLength, 0))
  let at = 0
  for (const chunk of chunks) {
    all.set(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength), at)
    at += chunk.byteLength
  }
  return all
}

const CONFIG = 'config.json'
const MODEL = 'model.safetensors'
const WRITTEN = [CONFIG, MANIFEST_FILE, MODEL, FITTED_FILE, CALIBRATION_FILE]

/**
 * Writes heads as a model directory. The folder must be missing, empty, cut off work of this kind, or hold heads that this function
 * wrote, in whose place these are put, and whose calibration goes where it is not of these. config.json comes last. Throws where it holds
 * anything else.
 */
export async function writeHeads(checkpoint: Checkpoint, out: Store): Promise<void> {
  await checkHeadsFolder(out)
  const names = await out.list()
  const { manifest, regression } = checkpoint
  const outputs = manifest.attributes.length * manifest.levels.length
  const kept = await readCalibration(out, regression, outputs).catch(() => null)
  const work = await openWork(out, { command: 'heads', settings: {}, restart: true, allowed: names })
  if (names.includes(CALIBRATION_FILE) && kept === null) await out.remove(CALIBRATION_FILE)
  await out.remove(CONFIG)
  let config: CheckpointFile | null = null
  for await (const output of encodeCheckpoint(checkpoint)) {
    if (output.file === CONFIG) config = output
    else await out.write(output.file, output.chunks)
  }
  await out.write(CONFIG, config!.chunks)
  await work.end()
}

/** Throws unless a folder can take heads: see `writeHeads`. */
export async function checkHeadsFolder(out: Store): Promise<void> {
  const names = await out.list()
  if (names.length === 0 || names.includes(WORK_FILE)) return
  const strange = names.find((name) => !WRITTEN.includes(name))
  if (strange === undefined && (await holdsHeads(out))) return
  const what = strange === undefined ? 'another model' : JSON.stringify(strange)
  throw new Error(
    `${out.name}: must be missing, empty or hold heads of "pinball fit", it has ${what}; choose another --out`,
  )
}

/** Whether a folder holds heads alone that say of themselves what they were fitted to, as no others do. */
async function holdsHeads(out: Store): Promise<boolean> {
  const tensors = await openModelTensors(out).catch(() => null)
  if (tensors === null) return false
  try {
    if ([...tensors.keys()].some((name) => name.startsWith('model.'))) return false
    const { regression } = await readCheckpoint({
      ...out,
      open: async (file) => (file === CALIBRATION_FILE ? null : out.open(file)),
    })
    return (await readFitted(out, regression)) !== null
  } catch {
    return false
  } finally {
    await closeTensors(tensors)
  }
}
