// Makes a file of features and its manifest: rows in chunks, each kept when it is finished, then put together.
import { layOutSafetensors, type TensorData } from '../../files/safetensors.ts'
import { memoryStore, type Store } from '../../files/store.ts'
import { endFinished, openWork, type Work } from '../../files/work.ts'
import type { FeatureModel, Progress, RunOptions } from '../features.ts'
import type { EncodedRow } from '../rows.ts'
import { type Chunk, PART_NAMES, partName, planChunks } from './chunks.ts'
import { encodeStates, type FeatureDType, rowTensors, type StateTensor, stateTensors } from './layout.ts'
import {
  type FeatureManifest,
  type FeatureOrigin,
  isFinished,
  manifestName,
  readFeatureManifest,
  writeFeatureManifest,
} from './manifest.ts'
import { encodeFeatureRows, type FeatureRows, type SkippedRow, tokensOf } from './rows.ts'

export interface FeatureFileOptions extends RunOptions {
  /** Where the file and its manifest go. */
  readonly store: Store
  /** The name of the file, F.safetensors; its manifest is F.json. Files of shards have names by `shardName`. */
  readonly file: string
  /** Keeps finished chunks until the file is there, so that the same call continues after a crash. In memory by default. */
  readonly partial?: Store
  /** Also the states that the gate reads; pairs always have them. */
  readonly gate?: boolean
  /** How states are stored: 'f32' by default; 'bf16' rounds to nearest, ties to even. */
  readonly dtype?: FeatureDType
  /** The longest row in tokens, where it is shorter than the model's. */
  readonly maxLength?: number
  /** Begins anew, whatever is there of an earlier call. */
  readonly restart?: boolean
  /** Called before the first row is computed, with what an earlier call has finished. */
  readonly onStart?: (before: Progress) => void
  /** Takes one line about each damaged part of an earlier call, which is set aside and made again. */
  readonly onDamage?: (line: string) => void
}

/** What one call computed. */
export interface ComputedRows {
  readonly rows: number
  readonly tokens: number
  readonly ms: number
}

export interface MadeFeatures {
  readonly manifest: FeatureManifest
  /** Rows that were left out; empty where the file was there already. */
  readonly skipped: readonly SkippedRow[]
  /** null where the file was there already, made of the same. */
  readonly computed: ComputedRows | null
}

const COMMAND = 'features'

/**
 * Computes the features of rows and writes them as F.safetensors and F.json, unless both are there and made of the same. Ratings become
 * "embeddings" [N, D], with labels "labels" [L, M] and what goes with them; pairs become "embeddings" [N, 2, D], "prompt_embeddings",
 * "prompt_ids" and "subset_ids". A call that continues another gives the same bits. Throws on rows that are not valid (unless they are
 * to be skipped), where no row is left, on a manifest's name that something else has, and on work of other settings in `partial`.
 */
export async function makeFeatures(
  model: FeatureModel,
  rows: FeatureRows,
  options: FeatureFileOptions,
): Promise<MadeFeatures> {
  // All of a file is made under one adapter.
  return model.pinned((fixed) => makeUnder(fixed, rows, options))
}

async function makeUnder(model: FeatureModel, rows: FeatureRows, options: FeatureFileOptions): Promise<MadeFeatures> {
  let known: Promise<string> | null = null
  const fingerprint = () => (known ??= model.fingerprint())
  const there = await findFeatures(rows, options, fingerprint)
  if (there !== null) return { manifest: there, skipped: [], computed: null }
  const { store, file, partial = memoryStore(`${file}.partial`), dtype = 'f32', restart, onDamage } = options
  const gate = options.gate === true || rows.kind === 'pairs'
  const encoded = encodeFeatureRows(model, rows, { gate, maxLength: options.maxLength })
  if (encoded.rows.length === 0 && rows.shard.count === 1) {
    throw new Error(`${rows.name}: has no row that is valid; the first: ${encoded.skipped[0].reason}`)
  }
  const columns = model.config.hidden
  const tensors = stateTensors(encoded, { gate, dtype, columns })
  const chunks = planChunks(encoded.rows.map(tokensOf))
  const origin = originOf(rows, options, await fingerprint())
  // Devices round in their own ways.
  const settings = { '--device': model.device.name, ...settingsOf(origin) }
  const work = await openWork(partial, { command: COMMAND, settings, partNames: PART_NAMES, restart, onDamage })
  const computed = await computeChunks(model, encoded, chunks, tensors, work, options)
  const content = rowTensors(encoded)
  const metadata = { model: model.name, fingerprint: origin.fingerprint, ...content.metadata }
  const bytes = await writeTensors(
    store,
    file,
    { chunks, tensors, work },
    encoded.rows.length,
    content.tensors,
    metadata,
  )
  const manifest = await writeFeatureManifest(store, {
    kind: rows.kind,
    file,
    bytes,
    sha256: await store.digest(file),
    labels: content.labels,
    model: model.name,
    ...origin,
    columns,
    tokens: chunks.reduce((sum, chunk) => sum + chunk.tokens, 0),
    rows: encoded.rows.map((row) => row.id),
    skipped: encoded.skipped,
  })
  await work.end()
  return { manifest, skipped: encoded.skipped, computed }
}

/**
 * The manifest of a file that is there, whole and made of the same; null where it is to be made. The model's fingerprint is asked for
 * only where there is a manifest. Throws where the manifest's name is taken by something else.
 */
export async function findFeatures(
  rows: FeatureRows,
  options: FeatureFileOptions,
  fingerprint: () => Promise<string>,
): Promise<FeatureManifest | null> {
  const { store, file, partial, restart } = options
  const manifest = await readFeatureManifest(store, manifestName(file))
  if (manifest === null || restart) return null
  const origin = originOf(rows, options, await fingerprint())
  if (!(await isFinished(store, file, manifest, origin))) return null
  // The call that made it may have been cut off before it could remove them.
  if (partial) await endFinished(partial, { command: COMMAND, settings: settingsOf(origin), partNames: PART_NAMES })
  return manifest
}

function originOf(
  { shard, labels, weights, skipInvalid, hash }: FeatureRows,
  { gate = false, dtype = 'f32', maxLength }: FeatureFileOptions,
  fingerprint: string,
): FeatureOrigin {
  return {
    shard: shard.index,
    shards: shard.count,
    fingerprint,
    input: hash,
    options: { labels, weights, gate, dtype, max_length: maxLength ?? null, skip_invalid: skipInvalid },
  }
}

/** What chunks depend on, by what an error calls it. */
function settingsOf({ shard, shards, fingerprint, input, options }: FeatureOrigin): Record<string, unknown> {
  const flags = Object.entries(options).map(([name, value]) => [`--${name.replaceAll('_', '-')}`, value])
  return {
    '--shard': `${shard}/${shards}`,
    ...Object.fromEntries(flags),
    'a model with the fingerprint': fingerprint,
    'rows with the SHA-256': input,
  }
}

/** Computes the chunks that are not finished. */
async function computeChunks(
  model: FeatureModel,
  { rows, kind }: FeatureRows<EncodedRow>,
  chunks: readonly Chunk[],
  tensors: readonly StateTensor[],
  work: Work,
  { onStart, onProgress, signal, share }: FeatureFileOptions,
): Promise<ComputedRows> {
  const missing = [...chunks.keys()].filter((c) => !work.has(partName(c)))
  const sum = (which: readonly number[], key: 'count' | 'tokens') => which.reduce((all, c) => all + chunks[c][key], 0)
  const here = { rows: sum(missing, 'count'), tokens: sum(missing, 'tokens') }
  const totals = { rows: rows.length, totalTokens: sum([...chunks.keys()], 'tokens') }
  const before = { done: totals.rows - here.rows, tokens: totals.totalTokens - here.tokens }
  onStart?.({ ...before, ...totals })
  const start = performance.now()
  const sides = kind === 'pairs' ? 2 : 1
  for (const c of missing) {
    const { first, count, tokens } = chunks[c]
    const some = rows.slice(first, first + count)
    const found = await model.features(
      some.flatMap((row) => row.sides),
      {
        gate: tensors.length > 1,
        nameRow: (row) => some[Math.floor(row / sides)].where,
        onProgress: (now) =>
          onProgress?.({
            done: before.done + Math.floor(now.done / sides),
            tokens: before.tokens + now.tokens,
            ...totals,
          }),
        signal,
        share,
      },
    )
    await work.write(partName(c), encodeStates(tensors, some, found))
    before.done += count
    before.tokens += tokens
  }
  return { ...here, ms: performance.now() - start }
}

/** Puts the file together, never more than one chunk in memory. Gives its length in bytes. */
async function writeTensors(
  store: Store,
  file: string,
  {
    chunks,
    tensors,
    work,
  }: { readonly chunks: readonly Chunk[]; readonly tensors: readonly StateTensor[]; readonly work: Work },
  rows: number,
  others: readonly TensorData[],
  metadata: Record<string, string>,
): Promise<number> {
  const states = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape: [rows, ...shape], data: null }))
  const { header, ordered } = layOutSafetensors([...states, ...others], metadata)
  let length = 0
  async function* content() {
    yield header
    for (const { name, data } of ordered) {
      if (data !== null) yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      else yield* readStates(work, chunks, tensors, name)
    }
  }
  async function* counted() {
    for await (const bytes of content()) {
      length += bytes.length
      yield bytes
    }
  }
  await store.write(file, counted())
  return length
}

/** The bytes of one tensor, chunk by chunk. */
async function* readStates(
  work: Work,
  chunks: readonly Chunk[],
  tensors: readonly StateTensor[],
  name: string,
): AsyncGenerator<Uint8Array> {
  const at = tensors.findIndex((tensor) => tensor.name === name)
  const before = tensors.slice(0, at).reduce((bytes, { rowBytes }) => bytes + rowBytes, 0)
  for (const [c, { count }] of chunks.entries()) {
    const part = await work.open(partName(c))
    try {
      yield await part.read(count * before, count * tensors[at].rowBytes)
    } finally {
      await part.close()
    }
  }
}
