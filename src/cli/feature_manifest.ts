// The manifest beside a file of features: what is in it, what it was made from, and whether the file is still what was written.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import about from '../../package.json' with { type: 'json' }
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { isObject, printable } from '../files/json.ts'
import type { RowId, SkippedRow } from './feature_rows.ts'

/** What a run would make: a finished file of the same is not made again. No part depends on time or place. */
export interface Wanted {
  readonly shard: number
  readonly shards: number
  /** Of the model. */
  readonly fingerprint: string
  /** SHA-256 of the rows. */
  readonly input: string
  readonly options: Readonly<Record<string, unknown>>
}

export interface FeatureManifest extends Wanted {
  readonly manifest: 'pinball features'
  /** Of this format. */
  readonly version: 1
  /** Version of Pinball. */
  readonly pinball: string
  readonly kind: 'ratings' | 'pairs'
  /** Its file, beside the manifest. */
  readonly file: string
  /** Name of the model. */
  readonly model: string
  readonly bytes: number
  /** SHA-256 of the file. */
  readonly sha256: string
  /** Ids of the rows, in the order of the features. */
  readonly rows: readonly RowId[]
  /** Number of lines of labels. */
  readonly labels: number
  readonly columns: number
  readonly tokens: number
  /** Number of rows that were left out. */
  readonly skipped: number
  /** The first of them. */
  readonly skipped_rows: readonly Pick<SkippedRow, 'id' | 'reason'>[]
}

/** The manifest of a file: F.json for F.safetensors. */
export function manifestName(file: string): string {
  return `${file.replace(/\.safetensors$/, '')}.json`
}

// What every manifest begins with, whatever its version: it tells our file from one that happens to have its name.
const BEGIN = '{"manifest":"pinball features"'

/**
 * Reads a manifest; null where there is none or it is damaged. Throws where the file is something else, which must not be
 * overwritten.
 */
export async function readManifest(path: string): Promise<FeatureManifest | null> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw new Error(`${path}: cannot be read (${error.code})`)
  })
  if (text === '') return null
  if (!text.startsWith(BEGIN.slice(0, text.length))) {
    throw new Error(`${path}: is where the manifest goes, and is something else; move it or choose another --out`)
  }
  try {
    const found: unknown = JSON.parse(text)
    return isManifest(found) ? found : null
  } catch {
    return null
  }
}

function isManifest(found: unknown): found is FeatureManifest {
  if (!isObject(found) || found.version !== 1) return false
  const numbers = ['bytes', 'labels', 'columns', 'tokens', 'skipped']
  return (
    numbers.every((key) => Number.isSafeInteger(found[key])) &&
    typeof found.sha256 === 'string' &&
    Array.isArray(found.rows)
  )
}

/** Whether the file is there, is what its manifest says, and is what is wanted. */
export async function isFinished(file: string, manifest: FeatureManifest, wanted: Wanted): Promise<boolean> {
  const keys = ['shard', 'shards', 'fingerprint', 'input', 'options'] as const
  if (keys.some((key) => JSON.stringify(manifest[key]) !== JSON.stringify(wanted[key]))) return false
  const source = await openFile(file).catch(() => null)
  if (source === null) return false
  try {
    if (source.byteLength !== manifest.bytes) return false
    const hash = createHash('sha256')
    const piece = new Uint8Array(PIECE_BYTES)
    for (let at = 0; at < source.byteLength; at += PIECE_BYTES) {
      hash.update(await source.read(at, Math.min(PIECE_BYTES, source.byteLength - at), piece))
    }
    return hash.digest('hex') === manifest.sha256
  } finally {
    await source.close()
  }
}

const PIECE_BYTES = 4 * 2 ** 20
// All rows may be too long: then it says so with the first ones.
const SKIPPED_LISTED = 1000

/** Writes a manifest. */
export async function writeManifest(
  path: string,
  {
    skipped,
    ...rest
  }: Omit<FeatureManifest, 'manifest' | 'version' | 'pinball' | 'skipped' | 'skipped_rows'> & {
    readonly skipped: readonly SkippedRow[]
  },
): Promise<FeatureManifest> {
  const manifest: FeatureManifest = {
    manifest: 'pinball features',
    version: 1,
    pinball: about.version,
    ...rest,
    skipped: skipped.length,
    skipped_rows: skipped.slice(0, SKIPPED_LISTED).map(({ id, reason }) => ({ id, reason: printable(reason) })),
  }
  await writeFileAtomic(path, [new TextEncoder().encode(`${JSON.stringify(manifest)}\n`)])
  return manifest
}

/** Passes chunks of bytes on, and counts and hashes them. */
export function hashed(chunks: AsyncIterable<Uint8Array>): {
  readonly chunks: AsyncIterable<Uint8Array>
  /** Once all have been taken. */
  result(): { bytes: number; sha256: string }
} {
  const hash = createHash('sha256')
  let bytes = 0
  async function* pass() {
    for await (const chunk of chunks) {
      hash.update(chunk)
      bytes += chunk.length
      yield chunk
    }
  }
  return { chunks: pass(), result: () => ({ bytes, sha256: hash.digest('hex') }) }
}
