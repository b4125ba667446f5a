// Stages of a long piece of work in a folder of folders: each is done once, and again where what it was made of or what it made has changed.
import { isObject } from '../files/json.ts'
import type { Store, StoreTree } from '../files/store.ts'
import { openWork, type Work, type WorkSettings } from '../files/work.ts'

export interface Stages {
  /**
   * Does a stage unless it has been done with the same settings and its files are what it left. `work` gives the names of the files in
   * `store` that it has written. Gives whether it was done now.
   */
  run(name: string, settings: WorkSettings, store: Store, work: () => Promise<readonly string[]>): Promise<boolean>
  /** The files that a stage has left, with their SHA-256, where they still are what it left; else null. */
  files(name: string, store: Store): Promise<Readonly<Record<string, string>> | null>
}

export interface StageOptions {
  readonly command: string
  /** What all of the work depends on. Another one in the same folder is refused, unless it is to begin anew. */
  readonly settings: WorkSettings
  readonly names: readonly string[]
  readonly restart?: boolean
  /** Takes a line about a damaged record of a stage, which is then done again. */
  readonly onNote?: (line: string) => void
  /** Called when a stage begins, or is passed over because it is done. */
  readonly onStage?: (name: string, done: boolean) => void
  readonly signal?: AbortSignal
}

/**
 * Opens the work of a folder, which must be missing, empty, or hold work of the same command with the same settings. The records of its
 * stages stay there: they are what says that it is Pinball's.
 */
export async function openStages(tree: StoreTree, options: StageOptions): Promise<Stages> {
  const { command, settings, names, restart, onNote, onStage, signal } = options
  const files = await tree.list()
  if (files.length === 0) {
    const [folder] = await tree.folders()
    if (folder !== undefined) {
      throw new Error(
        `${tree.name}: must be missing, empty or hold work of "${command}", it has the folder ${JSON.stringify(folder)}; choose another --out`,
      )
    }
  }
  const partNames = new RegExp(`^(${names.join('|')})$`)
  const work = await openWork(tree, { command, settings, partNames, restart, onDamage: onNote })
  const left = async (name: string, store: Store) => {
    const record = await readRecord(work, name)
    if (record === null) return null
    const present = await store.list()
    for (const [file, sha] of Object.entries(record.files)) {
      if (!present.includes(file) || (await store.digest(file)) !== sha) return null
    }
    return record
  }
  return {
    async run(name, own, store, make) {
      signal?.throwIfAborted()
      const before = await left(name, store)
      const done = before !== null && JSON.stringify(before.settings) === JSON.stringify(own)
      onStage?.(name, done)
      if (done) return false
      const made: Record<string, string> = {}
      for (const file of await make()) made[file] = await store.digest(file)
      await work.write(name, [new TextEncoder().encode(JSON.stringify({ settings: own, files: made }))])
      return true
    },
    files: async (name, store) => (await left(name, store))?.files ?? null,
  }
}

async function readRecord(
  work: Work,
  name: string,
): Promise<{ readonly settings: unknown; readonly files: Readonly<Record<string, string>> } | null> {
  if (!work.has(name)) return null
  const source = await work.open(name)
  try {
    const found: unknown = JSON.parse(new TextDecoder().decode(await source.read(0, source.byteLength)))
    if (!isObject(found) || !isObject(found.files)) return null
    return { settings: found.settings, files: found.files as Record<string, string> }
  } finally {
    await source.close()
  }
}
