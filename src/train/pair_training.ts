// Training on pairs: Bradley-Terry loss, AdamW, cosine schedule, validation after each epoch; the same loop for every model.
//
//   margin[b] = margin_scale * (sum over m of y[b, m] r[b, m]);   loss = mean over b of -log(sigmoid(margin[b]))
//
// y is what the model gives. For a gate, y are the weights of the attributes and r the rewards of the chosen response less those
// of the rejected one. Where both sides of a pair have a state of their own, y[b] is that of the chosen side followed by that of
// the rejected one, and r[b] their rewards, those of the rejected side negated: the margin is the same sum.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import { adamw, type Parameter } from './adamw.ts'
import { addBatch, type EpochResult, type LogEntry, means, NO_PAIRS, type Sums } from './log.ts'
import { type Batch, largestBatch, listBatches, readAhead, type Split } from './pair_batches.ts'
import { cosine, planSteps } from './schedule.ts'

/** A model on a device with its gradients. */
export interface PairModel {
  readonly parameters: readonly Parameter[]
  /** What is kept beside parameters: running statistics. */
  readonly statistics: readonly { readonly name: string; readonly value: Tensor }[]
  /** Outputs [R, O] for states x [R, D]; `training` says whether statistics are those of the batch. */
  forward(x: Tensor, training: boolean): Tensor
  /** Sets the gradients of the parameters from those of the outputs of the last `forward` in training. */
  backward(dy: Tensor): void
  destroy(): void
}

/** The states that a model reads and the rewards that its outputs meet. */
export interface PairStates {
  readonly pairs: number
  /** D */
  readonly columns: number
  /** Rows of states of a pair. */
  readonly sides: 1 | 2
  /** [N, sides * O] */
  readonly rewards: Float32Array
  /** States [B, sides, D] in the beginning of `into`. */
  read(rows: Uint32Array, into: Float32Array): Promise<Float32Array>
}

export interface PairSettings {
  /** Learning rate of the first step. */
  readonly lr: number
  readonly weightDecay: number
  /** Pairs of a step, 2 or more. */
  readonly batch: number
  readonly epochs: number
  readonly marginScale: number
  /** Share of the prompts that is for validation, in [0, 1). */
  readonly validation: number
  readonly seed: number
}

/** Of the paper where it says: learning rate, decay, batch and epochs. */
export const PAIR_DEFAULTS: PairSettings = {
  lr: 3e-4,
  weightDecay: 1e-3,
  batch: 1024,
  epochs: 3,
  marginScale: 1,
  validation: 0.1,
  seed: 0,
}

/** How far a training has come; beside the tensors all that the steps to come depend on. */
export interface Position {
  /** Steps done. */
  readonly step: number
  /** Since the last line of the log. */
  readonly recent: Sums
  /** Of the epoch under way. */
  readonly epoch: Sums
  /** Epochs done. */
  readonly epochs: readonly EpochResult[]
}

export const BEGINNING: Position = { step: 0, recent: NO_PAIRS, epoch: NO_PAIRS, epochs: [] }

export interface PairTask {
  readonly device: Device
  readonly model: PairModel
  readonly states: PairStates
  readonly split: Split
  readonly settings: PairSettings
  /** Where it goes on; the model has the tensors of then. */
  readonly start?: Position
  /** Steps between two lines of the log; default 10. */
  readonly logEvery?: number
  readonly onEntry?: (entry: LogEntry) => void
  /** After each step, when everything is consistent and may be saved. */
  readonly onStep?: (position: Position, steps: number) => Promise<void> | void
  /** Stops after a step, and throws its reason. */
  readonly signal?: AbortSignal
}

/** Trains to the end. Throws where a loss is not finite. Two batches of states are in memory: one computed, one being read. */
export async function trainPairs(task: PairTask): Promise<Position> {
  const { device, model, states, split, settings, start = BEGINNING, logEvery = 10, onEntry, onStep, signal } = task
  const plan = planSteps(split.training.length, settings.batch, settings.epochs)
  const batch = largestBatch(split, settings.batch)
  const buffers = makeBuffers(device, states, batch)
  const batches = listBatches(split, plan, settings.seed, start.step)
  const ahead = readAhead(batches, states.read, new Float32Array(batch * states.sides * states.columns))
  let position = start
  try {
    while (position.step < plan.steps) {
      const { step } = position
      const lr = cosine(settings.lr, step, plan.steps)
      const { losses, margins, backward } = await forward(task, buffers, await ahead.next(), ahead.release)
      backward()
      adamw(device, model.parameters, { lr, weightDecay: settings.weightDecay, step })
      const [loss, margin] = [await losses(), await margins()]
      let recent = addBatch(position.recent, loss, margin)
      let epoch = addBatch(position.epoch, loss, margin)
      if (!Number.isFinite(epoch.loss)) {
        throw new Error(`training: the loss must be finite, step ${step + 1} gives ${epoch.loss}; use a smaller --lr`)
      }
      const epochs = [...position.epochs]
      const done = step + 1
      const ends = done % plan.stepsPerEpoch === 0
      if (ends || done % logEvery === 0) {
        onEntry?.({ step: done, epoch: epochs.length + 1, lr, ...means(recent) })
        recent = NO_PAIRS
      }
      if (ends) {
        const held = split.validation.length > 0 ? means(await validate(task, buffers, ahead)) : null
        const validation = { validation_loss: held?.loss ?? null, validation_accuracy: held?.accuracy ?? null }
        epochs.push({ epoch: epochs.length + 1, ...means(epoch), ...validation })
        onEntry?.({ step: done, ...epochs[epochs.length - 1] })
        epoch = NO_PAIRS
      }
      position = { step: done, recent, epoch, epochs }
      await onStep?.(position, plan.steps)
      signal?.throwIfAborted()
    }
    return position
  } finally {
    await ahead.end()
    for (const tensor of Object.values(buffers)) tensor.destroy()
  }
}

interface Buffers {
  readonly [name: string]: Tensor
  readonly x: Tensor
  readonly r: Tensor
  readonly dy: Tensor
  readonly margin: Tensor
  readonly loss: Tensor
}

function makeBuffers(device: Device, { pairs, columns, sides, rewards }: PairStates, batch: number): Buffers {
  const width = rewards.length / pairs
  return {
    x: device.tensor([batch * sides, columns], { label: 'states' }),
    r: device.tensor([batch, width], { label: 'rewards' }),
    dy: device.tensor([batch, width], { label: 'gradient of outputs' }),
    margin: device.tensor([batch], { label: 'margins' }),
    loss: device.tensor([batch], { label: 'losses' }),
  }
}

/** Runs the model and the loss of a batch; what is read from it is waited for by whoever reads. */
async function forward(
  { device, model, states, settings }: PairTask,
  { x: x_, r: r_, dy: dy_, margin: margin_, loss: loss_ }: Buffers,
  { use, rows, states: values }: Batch & { readonly states: Float32Array },
  release: () => void,
) {
  const { columns, sides, pairs, rewards } = states
  const count = rows.length
  const width = rewards.length / pairs
  const x = x_.view([count * sides, columns])
  x.write(values)
  release()
  const wanted = new Float32Array(count * width)
  for (let b = 0; b < count; b++) wanted.set(rewards.subarray(rows[b] * width, (rows[b] + 1) * width), b * width)
  const r = r_.view([count, width])
  r.write(wanted)
  const y = model.forward(x, use === 'training') // [B * sides, O]
  const [dy, margin, loss] = [dy_.view([count, width]), margin_.view([count]), loss_.view([count])]
  const tensors = { g: y.view([count, width]), r, margin, loss, dg: dy }
  device.run('bradley_terry', tensors, { margin_scale: settings.marginScale })
  return {
    losses: () => loss.readF32(),
    margins: () => margin.readF32(),
    backward: () => model.backward(dy.view(y.shape)),
  }
}

async function validate(task: PairTask, buffers: Buffers, ahead: ReturnType<typeof readAhead>): Promise<Sums> {
  const { validation } = task.split
  let sums = NO_PAIRS
  while (sums.pairs < validation.length) {
    const { losses, margins } = await forward(task, buffers, await ahead.next(), ahead.release)
    sums = addBatch(sums, await losses(), await margins())
  }
  return sums
}
