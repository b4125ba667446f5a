// The folder of a training: a store that holds states and log while it goes on, and the model and what was reached when it is done.
//
//   pinball-work.json   while it goes on: the command and every setting on which the bits depend
//   state-000123.part   everything after step 123, sealed with a checksum; the last two
//   log.jsonl           a line at a time; a state knows the length and the SHA-256 of what was logged before it
//   training.json       when it is done: settings and result, written last
//
// Whatever moment the process is killed at, the newest state whose checksum and log are right tells where to go on, and the log is
// cut back to what it was then. Nothing is overwritten that this or the training before it did not write.
import about from '../../package.json' with { type: 'json' }
import { BlockHash, digest, hex } from '../files/hash.ts'
import { isObject, parseJsonObject, printable } from '../files/json.ts'
import { readText } from '../files/source.ts'
import { fileDigest, type Store } from '../files/store.ts'
import { compareSettings, openWork, WORK_FILE, type Work, type WorkSettings } from '../files/work.ts'
import type { CheckpointFile } from '../reward/encode.ts'
import { type LogEntry, logLine } from './log.ts'
import type { Trainable } from './parameters.ts'
import type { Position } from './trainer.ts'
import { encodeState, openState } from './training_state.ts'

const RESULT = 'training.json'
const LOG = 'log.jsonl'
/** What a finished training leaves beside its log. */
const OUTPUTS =
  /^(config|pinball|training|adapter_config)\.json$|^(model|adapter_model).*\.safetensors(\.index\.json)?$/
/** The part that says which files of a finished training are to go, by their hashes. */
const OLD = 'replaced'
const STATE = /^state-(\d+)(\.part)?$/
/** The state before the first step. */
const FIRST_STATE = 'state-000000.part'
const PART_NAMES = /^(state-\d+|replaced)$/
/** States that are kept: the last one, and one in case it is damaged. */
const KEPT = 2
/** Lines of the log wait this long, or for the next state. */
const LOG_MS = 1000

export interface SaveEvery {
  readonly steps: number
  readonly seconds: number
}

/** Saves once a minute. */
export const SAVE_DEFAULT: SaveEvery = { steps: Infinity, seconds: 60 }

/** How a training is kept while it goes on. */
export interface ResumeOptions {
  /** Begins anew, whatever is kept of an earlier training. */
  readonly restart?: boolean
  /** When states are saved; default once a minute. */
  readonly saveEvery?: SaveEvery
  /** Takes one line about each damaged state of an earlier call, and one about where the training goes on then. */
  readonly onNote?: (line: string) => void
}

export interface FolderOptions extends ResumeOptions {
  /** The command, as `gate`; work of another one is refused. */
  readonly command: string
  /** Everything that the bits of the training depend on, by what an error calls it: an option, or what was read. Values are JSON. */
  readonly settings: WorkSettings
  /** What else the result is to say; nothing depends on it, and it may change when the training goes on. */
  readonly record?: WorkSettings
}

export type FinalFiles = AsyncIterable<CheckpointFile> | ((out: Store) => Promise<void>)

export interface TrainingFolder {
  /** What a finished training with the same settings has reached; null where there is something to do. */
  readonly result: Record<string, unknown> | null
  /** Puts what is trained where the training is, and gives that; a training that begins is saved at once. */
  begin<Tally>(trained: Trainable, start: Position<Tally>): Promise<Position<Tally>>
  log(entry: LogEntry): void
  /** After a step: saves the state where it is time to. */
  step(trained: Trainable, position: Position<unknown>): Promise<void>
  save(trained: Trainable, position: Position<unknown>): Promise<void>
  /**
   * Writes the files of the model, then the result, and removes the states. A function writes into the store that it is given, which
   * refuses to put a file in the place of another one.
   */
  finish(files: FinalFiles, result: Record<string, unknown>): Promise<void>
  /** Leaves a folder as it was where no training has begun in it. */
  close(): Promise<void>
}

/**
 * Opens the folder of a training, on a disk or in memory; it is made when the training begins. Throws where it holds a training with
 * other settings, naming the first that differs, or anything that is no training; `restart` begins a training anew whatever the
 * settings were.
 */
export async function openTrainingFolder(store: Store, options: FolderOptions): Promise<TrainingFolder> {
  const { command, restart = false, onNote = () => {} } = options
  const settings: WorkSettings = { command, ...options.settings }
  const names = await store.list()
  const begun = names.includes(WORK_FILE)
  const done = names.includes(RESULT) ? await readResult(store) : null
  const result = `${store.name}/${RESULT}`
  let damaged = false
  const open = (anew: boolean) =>
    openWork(store, {
      command,
      settings,
      partNames: PART_NAMES,
      restart: anew,
      allowed: done ? names : [],
      onDamage(line) {
        damaged = true
        onNote(line)
      },
    })
  if (done && !restart && !names.some((name) => STATE.test(name))) {
    if (!begun) compareSettings(done.settings, versioned(settings), result, 'holds a training')
    if (JSON.stringify(done.settings) === JSON.stringify(versioned(settings))) {
      // Killed when everything was written, or before it was begun anew.
      if (begun) await (await open(true)).end()
      return finished(done.result)
    }
  }
  // Before the end of the first step there is nothing to lose, whatever the settings were.
  const work = await open(restart || !(await hasSteps(store, names)))
  if (done && !work.resumed) {
    const old: Record<string, string | null> = {}
    const own = names.filter((name) => OUTPUTS.test(name) || done.files.includes(name))
    for (const name of own) old[name] = await fileDigest(store, name)
    await work.write(OLD, [new TextEncoder().encode(JSON.stringify(old))])
  }
  return new Folder(store, work, { ...options, settings, damaged })
}

/** Whether a folder holds more than a training that has not finished a step: such a one has logged nothing. */
async function hasSteps(store: Store, names: readonly string[]): Promise<boolean> {
  const kept = names.filter((name) => /^(state-\d+|replaced)\.part(\.damaged)?$/.test(name))
  if (kept.length === 0) return false
  if (kept.some((name) => name !== FIRST_STATE)) return true
  const log = await store.open(LOG)
  await log?.close()
  return log !== null && log.byteLength > 0
}

/** What a finished training has left. Throws where the file is not Pinball's. */
async function readResult(store: Store): Promise<{
  settings: Record<string, unknown>
  result: Record<string, unknown>
  /** Outputs under names that not every training has. */
  files: readonly unknown[]
}> {
  const path = `${store.name}/${RESULT}`
  const { settings, result, files = [] } = parseJsonObject((await readText(store, RESULT)) ?? '', path)
  if (isObject(settings) && typeof settings.command === 'string' && isObject(result) && Array.isArray(files))
    return { settings, result, files }
  throw new Error(`${printable(path)}: is not the result of a training; move it away or choose another --out`)
}

/** Settings as the result keeps them: another version may take other steps. */
function versioned(settings: WorkSettings): WorkSettings {
  return { version: about.version, ...settings }
}

function finished(result: Record<string, unknown>): TrainingFolder {
  const never = () => {
    throw new Error('training: it is finished')
  }
  return { result, begin: never, log: never, step: never, save: never, finish: never, async close() {} }
}

class Folder implements TrainingFolder {
  readonly result = null
  readonly #store: Store
  readonly #work: Work
  readonly #options: FolderOptions & { readonly damaged: boolean }
  readonly #log: Log
  #saved = { step: 0, at: performance.now() }

  constructor(store: Store, work: Work, options: FolderOptions & { readonly damaged: boolean }) {
    this.#store = store
    this.#work = work
    this.#options = options
    this.#log = new Log(store)
  }

  /** Names of the states and their steps, the newest first. */
  #states(): { part: string; step: number }[] {
    const states = this.#work.parts().flatMap((part) => {
      const [, step] = STATE.exec(part) ?? []
      return step === undefined ? [] : [{ part, step: Number(step) }]
    })
    return states.sort((a, b) => b.step - a.step)
  }

  async begin<Tally>(trained: Trainable, start: Position<Tally>): Promise<Position<Tally>> {
    const position = (await this.#goOn<Tally>(trained)) ?? start
    if (this.#states().length === 0) {
      const log = await this.#store.open(LOG)
      await log?.close()
      // The log of a finished training that is being replaced goes, any other stays.
      if (log && this.#work.resumed && !this.#work.has(OLD)) await this.#setAside()
      await this.save(trained, position)
      await this.#log.begin()
    }
    await this.#removeOld()
    return position
  }

  /** Loads the newest state that is right, with the log before it; null where there is none. */
  async #goOn<Tally>(trained: Trainable): Promise<Position<Tally> | null> {
    const { command, damaged, onNote = () => {} } = this.#options
    let skipped = damaged
    for (const { part } of this.#states()) {
      const source = await this.#work.open(part)
      try {
        const { about, position, load } = await openState<Tally>(source)
        if (await this.#log.goOn(Number(about.logBytes), String(about.logHash))) {
          await load(trained)
          this.#saved = { step: position.step, at: performance.now() }
          if (skipped) onNote(`${command}: goes on from step ${position.step}`)
          return position
        }
      } finally {
        await source.close()
      }
      const path = `${printable(this.#store.name)}/${LOG}`
      onNote(`${path} is not what was logged before ${part}, which is set aside as ${part}.part.damaged`)
      await this.#store.rename(`${part}.part`, `${part}.part.damaged`)
      await this.#work.remove(part)
      skipped = true
    }
    return null
  }

  async #setAside(): Promise<void> {
    const { command, onNote = () => {} } = this.#options
    await this.#store.rename(LOG, `${LOG}.damaged`)
    onNote(`${command}: begins anew; ${printable(this.#store.name)}/${LOG} is set aside as ${LOG}.damaged`)
  }

  /** Removes what a finished training has left, where it is still that. */
  async #removeOld(): Promise<void> {
    if (!this.#work.has(OLD)) return
    const source = await this.#work.open(OLD)
    const text = new TextDecoder().decode(await source.read(0, source.byteLength))
    await source.close()
    for (const [name, hash] of Object.entries(parseJsonObject(text, source.name))) {
      if ((await fileDigest(this.#store, name)) === hash) await this.#store.remove(name)
    }
    await this.#work.remove(OLD)
  }

  log(entry: LogEntry): void {
    this.#log.add(logLine(entry))
  }

  async step(trained: Trainable, position: Position<unknown>): Promise<void> {
    const { saveEvery = SAVE_DEFAULT } = this.#options
    const { step, at } = this.#saved
    const due = position.step - step >= saveEvery.steps || performance.now() - at >= 1000 * saveEvery.seconds
    if (due) await this.save(trained, position)
    else await this.#log.flush(LOG_MS)
  }

  async save(trained: Trainable, position: Position<unknown>): Promise<void> {
    const logged = await this.#log.sync()
    const part = `state-${String(position.step).padStart(6, '0')}`
    await this.#work.write(part, await encodeState(trained, position, logged))
    for (const { part: old } of this.#states().slice(KEPT)) await this.#work.remove(old)
    this.#saved = { step: position.step, at: performance.now() }
  }

  async finish(files: FinalFiles, result: Record<string, unknown>): Promise<void> {
    await this.#log.sync()
    const others: string[] = []
    const write: Store['write'] = async (file, chunks) => {
      await this.#put(file, chunks)
      if (!OUTPUTS.test(file)) others.push(file)
    }
    if (typeof files === 'function') await files({ ...this.#store, write })
    else for await (const { file, chunks } of files) await write(file, chunks)
    const { settings, record } = this.#options
    const more = others.length > 0 && { files: others }
    const content = { settings: versioned(settings), ...(record && { record }), result, ...more }
    const text = `${JSON.stringify(content, null, 2)}\n`
    await this.#put(RESULT, [new TextEncoder().encode(text)])
    await this.#work.end()
  }

  /** Writes a file, unless another one of its name has been put there. */
  async #put(file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const there = await fileDigest(this.#store, file)
    if (there !== null) {
      const hash = new BlockHash()
      for await (const chunk of chunks) await hash.update(chunk)
      if (there === hex(await hash.result())) return
      const path = `${printable(this.#store.name)}/${file}`
      throw new Error(`${path}: is not of this training and stays; move it away and run the same command again`)
    }
    await this.#store.write(file, chunks)
  }

  async close(): Promise<void> {
    if (this.#states().length === 0 && !this.#options.damaged) await this.#work.end()
  }
}

/** A log that is written at its end and can be cut back. */
class Log {
  readonly #store: Store
  #length = 0
  #waiting = ''
  #flushed = performance.now()

  constructor(store: Store) {
    this.#store = store
  }

  /** Cuts the file back to a length, if what is before it has that hash; gives whether it has. */
  async goOn(length: number, hash: string): Promise<boolean> {
    if ((await this.#hash(length)) !== hash) return false
    this.#length = length
    await this.#store.append(LOG, length, new Uint8Array())
    return true
  }

  /** Begins an empty file. */
  async begin(): Promise<void> {
    this.#length = 0
    await this.#store.write(LOG, [])
  }

  add(line: string): void {
    this.#waiting += line
  }

  /** Writes what waits, if the last time is at least `ms` ago. */
  async flush(ms: number): Promise<void> {
    if (this.#waiting === '' || performance.now() - this.#flushed < ms) return
    const lines = new TextEncoder().encode(this.#waiting)
    await this.#store.append(LOG, this.#length, lines)
    this.#length += lines.length
    this.#waiting = ''
    this.#flushed = performance.now()
  }

  /** Writes all lines, and gives what a state must know of the file. */
  async sync(): Promise<{ logBytes: number; logHash: string | null }> {
    await this.flush(0)
    return { logBytes: this.#length, logHash: await this.#hash(this.#length) }
  }

  /** Hash of the beginning of the file; null where it is shorter. */
  async #hash(length: number): Promise<string | null> {
    if (length === 0) return digest(new Uint8Array())
    const source = await this.#store.open(LOG)
    if (source === null) return null
    try {
      return source.byteLength < length ? null : await digest(await source.read(0, length))
    } finally {
      await source.close()
    }
  }
}
