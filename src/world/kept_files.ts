// Files of a stage that are kept: made once, told from damaged and from foreign ones by their hashes, which a part of the work holds.
import { digest } from '../files/hash.ts'
import { memoryStore, type Store } from '../files/store.ts'
import type { Work } from '../files/work.ts'

/** What each file may hold, by its name: SHA-256 of its contents; several while an older one is being replaced. */
type Digests = Readonly<Record<string, readonly string[]>>

/**
 * Has the files of a stage in `store`: those that `make` writes into the store it is given. Where they are all there as the part says,
 * nothing is done; else they are made and written one by one. A file that is there already is only replaced where it is what an earlier
 * call wrote. Gives whether there was anything to do.
 */
export async function keepFiles(
  { work, part, store, again = false }: { work: Work; part: string; store: Store; again?: boolean },
  make: (out: Store) => Promise<void>,
): Promise<boolean> {
  const known = await readDigests(work, part)
  if (!again && known !== null && (await holds(store, known))) return false
  const made = new Map<string, Uint8Array>()
  await make(memoryStore(store.name, made))
  const digests: Record<string, string[]> = {}
  for (const [file, bytes] of made) digests[file] = [await digest(bytes.slice())]
  const there = await store.list()
  for (const file of made.keys()) {
    if (!there.includes(file)) continue
    const found = await store.digest(file)
    if (![...digests[file], ...(known?.[file] ?? [])].includes(found))
      throw new Error(`${store.name}/${file}: is not what Pinball wrote there; move it away`)
  }
  // What is about to be written is known before it is, so that a call after a crash finds nothing foreign.
  const both = Object.entries({ ...known, ...digests }).map(([file, own]) => [file, [...own, ...(known?.[file] ?? [])]])
  await writePart(work, part, Object.fromEntries(both))
  for (const [file, bytes] of made) await store.write(file, [bytes])
  await writePart(work, part, digests)
  return true
}

async function holds(store: Store, digests: Digests): Promise<boolean> {
  const there = await store.list()
  for (const [file, hashes] of Object.entries(digests))
    if (hashes.length !== 1 || !there.includes(file) || (await store.digest(file)) !== hashes[0]) return false
  return true
}

async function readDigests(work: Work, part: string): Promise<Digests | null> {
  return work.has(part) ? ((await readPart(work, part)) as Digests) : null
}

/** Reads a part that holds JSON. */
export async function readPart(work: Work, part: string): Promise<unknown> {
  const source = await work.open(part)
  try {
    return JSON.parse(new TextDecoder().decode(await source.read(0, source.byteLength)))
  } finally {
    await source.close()
  }
}

/** Seals a part of JSON. */
export function writePart(work: Work, part: string, value: unknown): Promise<void> {
  return work.write(part, [new TextEncoder().encode(JSON.stringify(value))])
}
