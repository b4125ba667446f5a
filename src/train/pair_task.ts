// Training on pairs as a task of the trainer: Bradley-Terry loss, validation after each epoch; the same for every model.
//
//   margin[b] = margin_scale * (sum over m of y[b, m] r[b, m]);   loss = mean over b of -log(sigmoid(margin[b]))
//
// y is what the model gives. For a gate, y are the weights of the attributes and r the rewards of the chosen response less those
// of the rejected one. Where both sides of a pair have a state of their own, y[b] is that of the chosen side followed by that of
// the rejected one, and r[b] their rewards, those of the rejected side negated: the margin is the same sum.
import type { Device } from '../device/device.ts'
import type { Tensor } from '../device/tensor.ts'
import type { LogEntry } from './log.ts'
import { type Batch, largestBatch, listBatches, planPairs, type Split } from './pair_batches.ts'
import { addBatch, type EpochResult, means, NO_PAIRS, type PairEntry, type PairTally, type Sums } from './pair_log.ts'
import type { Trainable } from './parameters.ts'
import { type ReadAhead, readAhead } from './read_ahead.ts'
import type { Plan } from './schedule.ts'
import {
  type MicroBatch,
  notFinite,
  type Position,
  type Recorded,
  type StepResult,
  type Task,
  type Training,
  train,
} from './trainer.ts'

/** A model on a device with its gradients. */
export interface PairModel extends Trainable {
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

/** A training on pairs; what it shares with others is told in trainer.ts. */
export interface PairTraining
  extends Pick<
    Training<ReadBatch, BatchSums, PairTally>,
    'device' | 'start' | 'keeper' | 'signal' | 'onBegin' | 'onStep' | 'onSave'
  > {
  readonly model: PairModel
  readonly states: PairStates
  readonly split: Split
  readonly settings: PairSettings
  /** Steps between two lines of the log; default 10. */
  readonly logEvery?: number
  readonly onEntry?: (entry: PairEntry) => void
}

/** Trains to the end. Throws where a loss is not finite. Two batches of states are in memory: one computed, one being read. */
export async function trainPairs(training: PairTraining): Promise<Position<PairTally>> {
  const { split, settings, onEntry } = training
  const plan = planPairs(split, settings.batch, settings.epochs)
  const task = new PairTask(training, plan)
  try {
    return await train({
      ...training,
      task,
      settings: {
        lr: settings.lr,
        schedule: 'cosine',
        warmup: 0,
        weightDecay: settings.weightDecay,
        maxGradNorm: null,
        steps: plan.steps,
        evaluateEvery: plan.stepsPerEpoch,
      },
      onEntry: onEntry as ((entry: LogEntry) => void) | undefined,
    })
  } finally {
    await task.close()
  }
}

/** A batch with its states [B, sides, D], which are overwritten once the next one is read. */
interface ReadBatch extends Batch, MicroBatch {
  readonly states: Float32Array
}

interface BatchSums {
  readonly losses: Float32Array
  readonly margins: Float32Array
}

class PairTask implements Task<ReadBatch, BatchSums, PairTally> {
  readonly nothing: PairTally = { recent: NO_PAIRS, epoch: NO_PAIRS, epochs: [] }
  readonly parameters
  readonly statistics
  readonly #training: PairTraining
  readonly #plan: Plan
  #ahead: ReadAhead<ReadBatch> | null = null
  readonly #buffers: ReturnType<typeof makeBuffers>
  readonly #largest: number
  #size = 0

  constructor(training: PairTraining, plan: Plan) {
    const { device, model, states, split, settings } = training
    this.#training = training
    this.#plan = plan
    this.parameters = model.parameters
    this.statistics = model.statistics
    this.#largest = largestBatch(split, settings.batch)
    this.#buffers = makeBuffers(device, states, this.#largest)
  }

  async updates(step: number): Promise<ReadBatch[][]> {
    this.#ahead ??= this.#readFrom(step)
    return [[await this.#ahead.next()]]
  }

  /** Reads all batches from a step on, those of the validations among them. */
  #readFrom(step: number): ReadAhead<ReadBatch> {
    const { states, split, settings } = this.#training
    const buffer = new Float32Array(this.#largest * states.sides * states.columns)
    return readAhead(listBatches(split, this.#plan, settings.seed, step), async (batch) => {
      const read = await states.read(batch.rows, buffer)
      return { ...batch, weight: batch.rows.length, states: read }
    })
  }

  compute(batch: ReadBatch): void {
    const { y, dy } = this.#forward(batch)
    this.#training.model.backward(dy.view(y.shape))
  }

  /** Runs the model and the loss of a batch, and has the next one read. */
  #forward({ use, rows, states: values }: ReadBatch): { y: Tensor; dy: Tensor } {
    const { device, model, states, settings } = this.#training
    const { columns, sides, pairs, rewards } = states
    const count = rows.length
    const width = rewards.length / pairs
    const x = this.#buffers.x.view([count * sides, columns])
    x.write(values)
    this.#ahead!.release()
    const wanted = new Float32Array(count * width)
    for (let b = 0; b < count; b++) wanted.set(rewards.subarray(rows[b] * width, (rows[b] + 1) * width), b * width)
    const r = this.#buffers.r.view([count, width])
    r.write(wanted)
    const y = model.forward(x, use === 'training') // [B * sides, O]
    const dy = this.#buffers.dy.view([count, width])
    const [margin, loss] = [this.#buffers.margin.view([count]), this.#buffers.loss.view([count])]
    const tensors = { g: y.view([count, width]), r, margin, loss, dg: dy }
    device.run('bradley_terry', tensors, { margin_scale: settings.marginScale })
    this.#size = count
    return { y, dy }
  }

  async sums(): Promise<BatchSums> {
    const { loss, margin } = this.#buffers
    const size = [this.#size]
    return { losses: await loss.view(size).readF32(), margins: await margin.view(size).readF32() }
  }

  record(tally: PairTally, { step, lr, updates, moved }: StepResult<BatchSums>): Recorded<PairTally> {
    const [{ losses, margins }] = updates.map(({ sums }) => sums)
    const { epochs } = tally
    const recent = addBatch(tally.recent, losses, margins)
    const epoch = addBatch(tally.epoch, losses, margins)
    if (!Number.isFinite(epoch.loss)) {
      throw notFinite('the loss', epoch.loss, { step, moved })
    }
    const { logEvery = 10 } = this.#training
    const due = step % logEvery === 0 || step % this.#plan.stepsPerEpoch === 0
    if (!due) return { tally: { recent, epoch, epochs }, entries: [] }
    const entry: PairEntry = { step, epoch: epochs.length + 1, lr, ...means(recent) }
    return { tally: { recent: NO_PAIRS, epoch, epochs }, entries: [entry] }
  }

  /** The end of an epoch. */
  async evaluate({ recent, epoch, epochs }: PairTally, step: number): Promise<Recorded<PairTally>> {
    const { validation } = this.#training.split
    let sums: Sums = NO_PAIRS
    while (sums.pairs < validation.length) {
      this.#forward(await this.#ahead!.next())
      const { losses, margins } = await this.sums()
      sums = addBatch(sums, losses, margins)
    }
    const held = validation.length > 0 ? means(sums) : null
    const result: EpochResult = {
      epoch: epochs.length + 1,
      ...means(epoch),
      validation_loss: held?.loss ?? null,
      validation_accuracy: held?.accuracy ?? null,
    }
    return { tally: { recent, epoch: NO_PAIRS, epochs: [...epochs, result] }, entries: [{ step, ...result }] }
  }

  async close(): Promise<void> {
    await this.#ahead?.end()
    for (const tensor of Object.values(this.#buffers)) tensor.destroy()
  }
}

function makeBuffers(device: Device, { pairs, columns, sides, rewards }: PairStates, batch: number) {
  const width = rewards.length / pairs
  return {
    x: device.tensor([batch * sides, columns], { label: 'states' }),
    r: device.tensor([batch, width], { label: 'rewards' }),
    dy: device.tensor([batch, width], { label: 'gradient of outputs' }),
    margin: device.tensor([batch], { label: 'margins' }),
    loss: device.tensor([batch], { label: 'losses' }),
  }
}
