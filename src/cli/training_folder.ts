// The folder of a training: state and log while it goes on, the model and what was reached when it is done.
//
// state.safetensors is there from the first step until everything else is written, training.json from then on. Whatever moment the
// process is killed at, one of them tells where to go on, and the log is cut back to what it was when the state was saved.
import { type FileHandle, mkdir, open, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import about from '../../package.json' with { type: 'json' }
import { openFile, writeFileAtomic } from '../files/disk.ts'
import { isObject, parseJsonObject, printable, show } from '../files/json.ts'
import type { CheckpointFile } from '../reward/encode.ts'
import { type LogEntry, logLine } from '../train/log.ts'
import { BEGINNING, type PairModel, type Position } from '../train/pair_training.ts'
import { encodeState, openState } from '../train/training_state.ts'

const STATE = 'state.safetensors'
const RESULT = 'training.json'
const LOG = 'log.jsonl'

/** Everything that the bits of a training depend on, by what an error calls it: an option, or what was read. */
export type TrainingSettings = Readonly<Record<string, unknown>>

export interface TrainingFolder {
  /** What a finished training with the same settings has reached; null where there is something to do. */
  readonly result: Record<string, unknown> | null
  /** Puts a model where the training is, and gives that; a training that begins is saved at once. */
  begin(model: PairModel): Promise<Position>
  log(entry: LogEntry): void
  /** Writes lines of the log that wait. */
  flush(): Promise<void>
  save(model: PairModel, position: Position): Promise<void>
  /** Writes the files of the model, then the result, and removes the state. */
  finish(files: AsyncIterable<CheckpointFile>, result: Record<string, unknown>): Promise<void>
  close(): Promise<void>
}

/**
 * Opens or makes the folder. Throws where it holds a training with other settings, naming the first that differs, or files that
 * are none of a training; `restart` begins a training anew whatever the settings were.
 */
export async function openTrainingFolder(
  folder: string,
  settings: TrainingSettings,
  { restart = false }: { readonly restart?: boolean } = {},
): Promise<TrainingFolder> {
  await makeFolder(folder)
  const names = await readdir(folder)
  const there = (name: string) => names.includes(name)
  const path = (name: string) => join(folder, name)
  const ours = there(STATE) || there(RESULT)
  const strange = names.find((name) => name !== LOG && !/^\..*\.tmp$/.test(name))
  if (!ours && strange !== undefined) {
    throw new Error(`${folder}: must be empty or hold a training, it has ${show(strange)}; choose another --out`)
  }
  for (const name of names) if (/^\..*\.[0-9a-f]{12}\.tmp$/.test(name)) await rm(path(name), { force: true })
  const resumed = there(STATE) && !restart
  if (!resumed && there(RESULT) && !restart) {
    const found = parseJsonObject(await readFile(path(RESULT), 'utf8'), path(RESULT))
    compare(found.settings, settings, path(RESULT), 'holds a training')
    if (isObject(found.result)) return finished(found.result)
    throw new Error(`${path(RESULT)}: is not the result of a training; give --restart or another --out`)
  }
  const log = new Log(path(LOG))
  const save = async (model: PairModel, position: Position) => {
    const logBytes = await log.sync()
    await writeFileAtomic(path(STATE), await encodeState(model, position, { settings: versioned(settings), logBytes }))
  }
  return {
    result: null,
    async begin(model) {
      if (resumed) {
        const source = await openFile(path(STATE))
        try {
          const state = await openState(source)
          compare(state.about.settings, settings, path(STATE), 'was begun')
          await log.open(Number(state.about.logBytes))
          await state.load(model)
          return state.position
        } finally {
          await source.close()
        }
      }
      await log.open(0)
      await save(model, BEGINNING)
      await rm(path(RESULT), { force: true })
      return BEGINNING
    },
    log: (entry) => log.add(logLine(entry)),
    flush: () => log.flush(),
    save,
    async finish(files, result) {
      await log.sync()
      for await (const { file, chunks } of files) await writeFileAtomic(path(file), chunks)
      const text = `${JSON.stringify({ settings: versioned(settings), result }, null, 2)}\n`
      await writeFileAtomic(path(RESULT), [new TextEncoder().encode(text)])
      await rm(path(STATE), { force: true })
    },
    close: () => log.close(),
  }
}

async function makeFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => null)
  if (found?.isDirectory()) return
  if (found) throw new Error(`${folder}: must be a directory for the model, it is a file`)
  await mkdir(folder).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${folder}: cannot be made: ${error.code === 'ENOENT' ? 'its parent does not exist' : error.code}`)
  })
}

function finished(result: Record<string, unknown>): TrainingFolder {
  const never = () => {
    throw new Error('training: it is finished')
  }
  return { result, begin: never, log: never, flush: never, save: never, finish: never, async close() {} }
}

function versioned(settings: TrainingSettings): TrainingSettings {
  // Another version may take other steps, and then they would not be those of one training.
  return { version: about.version, ...settings }
}

function compare(then: unknown, now: TrainingSettings, path: string, verb: string): void {
  if (!isObject(then)) throw new Error(`${path}: has no settings; give --restart or another --out`)
  for (const [name, value] of Object.entries(versioned(now))) {
    if (JSON.stringify(then[name]) === JSON.stringify(value)) continue
    const [before, after] = [show(then[name]), show(value)]
    throw new Error(
      `${printable(path)}: ${verb} with ${name} ${before}, now it is ${after}; use the same, --restart, or another --out`,
    )
  }
}

/** A log that is written at its end and can be cut back. */
class Log {
  readonly #path: string
  #file: FileHandle | null = null
  #bytes = 0
  #waiting = ''

  constructor(path: string) {
    this.#path = path
  }

  /** Opens it and cuts it to `bytes`, which it must have. */
  async open(bytes: number): Promise<void> {
    this.#file = await open(this.#path, bytes === 0 ? 'w' : 'r+').catch((error: NodeJS.ErrnoException) => {
      throw new Error(`${this.#path}: cannot be opened (${error.code}); give --restart`)
    })
    const { size } = await this.#file.stat()
    if (!(size >= bytes)) {
      throw new Error(
        `${this.#path}: must have ${bytes} bytes, as when the state was saved, got ${size}; give --restart`,
      )
    }
    await this.#file.truncate(bytes)
    this.#bytes = bytes
  }

  add(line: string): void {
    this.#waiting += line
  }

  async flush(): Promise<void> {
    if (this.#waiting === '' || this.#file === null) return
    const bytes = new TextEncoder().encode(this.#waiting)
    this.#waiting = ''
    await this.#file.write(bytes, 0, bytes.length, this.#bytes)
    this.#bytes += bytes.length
  }

  /** Gives the length that is safely on the disk. */
  async sync(): Promise<number> {
    await this.flush()
    await this.#file?.sync()
    return this.#bytes
  }

  async close(): Promise<void> {
    await this.#file?.close()
    this.#file = null
  }
}
