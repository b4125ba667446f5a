// The loop of every training. It knows nothing of what is trained: a task says what there is to compute, the loop adds up gradients,
// limits and applies them by the schedule, and keeps the position from which everything to come follows.
//
// A step is what is logged and saved; it has one update or, where data are made by the model itself, several. An update is one or
// more micro-batches whose gradients add up, always in the same order.
import type { Device } from '../device/device.ts'
import type { LogEntry } from './log.ts'
import { Optimiser, type OptimiserSettings } from './optimiser.ts'
import type { Trainable } from './parameters.ts'
import { learningRate, type Schedule } from './schedule.ts'

/** Rows whose gradients are computed at once. */
export interface MicroBatch {
  /** Rows or tokens, whatever the loss is a mean over. */
  readonly weight: number
}

/** Where a micro-batch is in its update. */
export interface Place {
  /** 0 for the first micro-batch of an update. */
  readonly index: number
  /** Sum of the weights of all micro-batches of the update: the loss is the sum over all of them divided by this. */
  readonly total: number
}

/** What an update came to. */
export interface UpdateResult<Sums> {
  readonly sums: Sums
  /** Global norm of the gradients before clipping; null where `maxGradNorm` is null. */
  readonly norm: number | null
}

/** A step that has been made. */
export interface StepResult<Sums> {
  /** From 1. */
  readonly step: number
  readonly lr: number
  readonly updates: readonly UpdateResult<Sums>[]
  /** Whether any parameter had been changed before its first update. */
  readonly moved: boolean
}

/** What to say where a number of a step is not finite. */
export function notFinite(
  what: string,
  value: number,
  { step, moved }: { readonly step: number; readonly moved: boolean },
): Error {
  const remedy = moved
    ? 'use a smaller --lr'
    : 'nothing had been learned before, so what it begins with holds NaN or is too large: the weights of the model, or the rows'
  return new Error(`training: ${what} must be finite, step ${step} gives ${value}; ${remedy}`)
}

/** What there is to write down: the tally as it is now, and lines of the log. */
export interface Recorded<Tally> {
  readonly tally: Tally
  readonly entries: readonly LogEntry[]
}

/**
 * What is trained. `Tally` is whatever the task counts over several steps (means of an epoch, tokens so far): JSON, saved with the
 * position. Methods are called one at a time, in the order of the steps.
 */
export interface Task<Batch extends MicroBatch, Sums, Tally> extends Trainable {
  /** The tally before the first step. */
  readonly nothing: Tally
  /** Whether `compute` adds to the gradients by itself from the second micro-batch on; otherwise it sets them and the loop adds. */
  readonly adds?: boolean
  /**
   * The updates of a step, counted from 0, each a list of micro-batches. Called for each step once, in order, from where training
   * begins or goes on; parameters are those that the steps before have made.
   */
  updates(step: number): Promise<readonly (readonly Batch[])[]>
  /** Records forward and backward of a micro-batch on the device. */
  compute(batch: Batch, place: Place): void | Promise<void>
  /** Reads what the last update came to, summed over its micro-batches. */
  sums(): Promise<Sums>
  /** Writes a step down. Throws where it is not finite. */
  record(tally: Tally, step: StepResult<Sums>): Recorded<Tally>
  /**
   * Evaluates after a step, on held-out data; changes no parameter. It may throw the signal's reason on the way, where it can be
   * called again for the same step, by a task that goes on there too.
   */
  evaluate?(tally: Tally, step: number, signal?: AbortSignal): Promise<Recorded<Tally>>
}

/** How far a training has come: beside the tensors of the task all that the steps to come depend on. */
export interface Position<Tally> {
  /** Steps done. */
  readonly step: number
  /** Updates done. */
  readonly updates: number
  readonly tally: Tally
  /** The lines of the last step, where its evaluation failed or was interrupted and is to be made anew. */
  readonly unevaluated?: readonly LogEntry[]
}

/** Where a training is kept while it goes on: what `openTrainingFolder` gives. */
export interface Keeper {
  /** Puts what is trained where the training is, and gives that; `start` where it begins. */
  begin<Tally>(trained: Trainable, start: Position<Tally>): Promise<Position<Tally>>
  log(entry: LogEntry): void
  /** After a step: saves where it is time to. */
  step(trained: Trainable, position: Position<unknown>): Promise<void>
  save(trained: Trainable, position: Position<unknown>): Promise<void>
}

export interface TrainerSettings extends Schedule, OptimiserSettings {
  readonly steps: number
  /** Evaluates after every so many steps; default never. */
  readonly evaluateEvery?: number
}

export interface Training<Batch extends MicroBatch, Sums, Tally> {
  readonly device: Device
  readonly task: Task<Batch, Sums, Tally>
  readonly settings: TrainerSettings
  /** Where it goes on, the task having the tensors of then, unless `keeper` knows better. */
  readonly start?: Position<Tally>
  readonly keeper?: Keeper | null
  /**
   * Stops after a step, before the next micro-batch of one that has not changed anything yet, or within an evaluation that allows it;
   * saves the last step, and throws its reason.
   */
  readonly signal?: AbortSignal
  readonly onEntry?: (entry: LogEntry) => void
  /** When it begins or goes on, before the first step. */
  readonly onBegin?: (position: Position<Tally>) => Promise<void> | void
  /** After each micro-batch. */
  readonly onBatch?: (batch: Batch, place: Place) => void
  /** After each step, when everything is consistent and may be saved. */
  readonly onStep?: (position: Position<Tally>) => Promise<void> | void
  /** When an interrupt has saved. */
  readonly onSave?: (position: Position<Tally>) => void
}

/** Trains to the end and gives the last position. Throws where a gradient's norm, or what the task records, is not finite. */
export async function train<Batch extends MicroBatch, Sums, Tally>(
  training: Training<Batch, Sums, Tally>,
): Promise<Position<Tally>> {
  const { device, task, settings, keeper, signal, onEntry, onBegin, onBatch, onStep, onSave } = training
  const { steps, evaluateEvery = Infinity } = settings
  const optimiser = new Optimiser(device, task.parameters, settings)
  let position = training.start ?? { step: 0, updates: 0, tally: task.nothing }
  /** Whether a rate above 0 has been applied; that of the first step may be 0. */
  let moved = false
  const write = ({ tally, entries }: Recorded<Tally>): Tally => {
    for (const entry of entries) {
      keeper?.log(entry)
      onEntry?.(entry)
    }
    return tally
  }
  const stop = async (): Promise<void> => {
    if (!signal?.aborted) return
    if (keeper) {
      await keeper.save(task, position)
      onSave?.(position)
    }
    signal.throwIfAborted()
  }
  /** The updates of the next step. Where they cannot be had, nothing has changed, and the steps before are saved. */
  const updatesOf = async (step: number): Promise<readonly (readonly Batch[])[]> => {
    try {
      return await task.updates(step)
    } catch (error) {
      await stop()
      await keeper?.save(task, position)
      throw error
    }
  }
  /** Evaluates the last step, whose lines these are, and ends it. Where that fails the step is saved: going on begins with it. */
  const finishStep = async (entries: readonly LogEntry[]): Promise<void> => {
    const { step, updates, tally } = position
    if (task.evaluate && step % evaluateEvery === 0) {
      position = { step, updates, tally, unevaluated: entries }
      try {
        const found = await task.evaluate(tally, step, signal)
        position = { step, updates, tally: write(found) }
      } catch (error) {
        await onStep?.(position)
        if (keeper) {
          await keeper.save(task, position)
          if (signal?.aborted) onSave?.(position)
        }
        throw error
      }
    }
    await onStep?.(position)
    await stop()
    if (step < steps) await keeper?.step(task, position)
  }
  try {
    position = (await keeper?.begin(task, position)) ?? position
    moved =
      [0, position.step - 1].some((step) => step >= 0 && learningRate(settings, step, steps) > 0) && position.step > 0
    await onBegin?.(position)
    if (position.unevaluated) {
      // They are in the log, but whoever is told has not kept them.
      for (const entry of position.unevaluated) onEntry?.(entry)
      await finishStep(position.unevaluated)
    }
    while (position.step < steps) {
      const lr = learningRate(settings, position.step, steps)
      const step = position.step + 1
      const updates: UpdateResult<Sums>[] = []
      for (const batches of await updatesOf(position.step)) {
        const total = batches.reduce((sum, { weight }) => sum + weight, 0)
        for (const [index, batch] of batches.entries()) {
          if (updates.length === 0) await stop()
          const place = { index, total }
          await task.compute(batch, place)
          onBatch?.(batch, place)
          if (batches.length > 1 && !task.adds) optimiser.add()
        }
        optimiser.update(lr, position.updates + updates.length)
        const sums = await task.sums()
        const norm = await optimiser.norm()
        if (norm !== null && !Number.isFinite(norm)) {
          throw notFinite('the norm of the gradients', norm, { step, moved: moved || (updates.length > 0 && lr > 0) })
        }
        updates.push({ sums, norm })
      }
      const recorded = task.record(position.tally, { step, lr, updates, moved })
      moved ||= lr > 0
      position = { step, updates: position.updates + updates.length, tally: write(recorded) }
      await finishStep(recorded.entries)
    }
    return position
  } finally {
    optimiser.destroy()
  }
}
