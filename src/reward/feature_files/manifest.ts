// The manifest beside a file of features: what is in it, what it was made of, and whether the file is still what was written.
import about from '../../../package.json' with { type: 'json' }
import { isObject, printable } from '../../files/json.ts'
import type { Store } from '../../files/store.ts'
import type { RowId, SkippedRow } from './rows.ts'

/** What a file is made of: a finished file of the same is not made again. No part depends on time or place. */
export interface FeatureOrigin {
  /** Counts from 0. */
  readonly shard: number
  readonly shards: number
  /** Of the model. */
  readonly fingerprint: string
  /** SHA-256 of the rows. */
  readonly input: string
  readonly options: Readonly<Record<string, unknown>>
}

export interface FeatureManifest extends FeatureOrigin {
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
export async function readFeatureManifest(store: Store, name: string): Promise<FeatureManifest | null> {
  const source = await store.open(name)
  if (source === null) return null
  try {
    const text = new TextDecoder().decode(await source.read(0, source.byteLength))
    if (!text.startsWith(BEGIN.slice(0, text.length))) {
      throw new Error(
        `${source.name}: is where the manifest goes, and is something else; move it or choose another --out`,
      )
    }
    return parseManifest(text)
  } finally {
    await source.close()
  }
}

function parseManifest(text: string): FeatureManifest | null {
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

/** Whether the file is there, is what its manifest says, and is made of what is wanted. */
export async function isFinished(
  store: Store,
  file: string,
  manifest: FeatureManifest,
  wanted: FeatureOrigin,
): Promise<boolean> {
  const keys = ['shard', 'shards', 'fingerprint', 'input', 'options'] as const
  if (keys.some((key) => JSON.stringify(manifest[key]) !== JSON.stringify(wanted[key]))) return false
  const source = await store.open(file).catch(() => null)
  await source?.close()
  return source?.byteLength === manifest.bytes && (await store.digest(file)) === manifest.sha256
}

// All rows may be too long: then it says so with the first ones.
const SKIPPED_LISTED = 1000

/** Writes a manifest. */
export async function writeFeatureManifest(
  store: Store,
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
  await store.write(manifestName(rest.file), [new TextEncoder().encode(`${JSON.stringify(manifest)}\n`)])
  return manifest
}
