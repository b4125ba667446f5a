// A training that is none of pairs: a linear map with a bias, fitted by least squares on a device, and the same in float64.
import type { Device } from '../src/device/device.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { microBatches, orderRows } from '../src/train/data_order.ts'
import { makeParameter, type Parameter, type Statistic } from '../src/train/parameters.ts'
import { planSteps } from '../src/train/schedule.ts'
import type { MicroBatch, Place, Recorded, StepResult, Task } from '../src/train/trainer.ts'
import { random } from './random.ts'

export const [ROWS, D, O] = [37, 5, 3]
const ALL = Uint32Array.from({ length: ROWS }, (_, i) => i)
const draw = random(31)
export const x = draw.normal(ROWS * D)
export const targets = draw.normal(ROWS * O)
export const START = draw.normal(O * D)
export const BIAS = draw.normal(O)

export interface LeastSquaresOptions {
  readonly batch: number
  readonly micro: number
  readonly epochs: number
  /** Adds gradients by itself. */
  readonly adds?: boolean
  /** Updates of a step, all on the same rows. */
  readonly updates?: number
}

export interface Rows extends MicroBatch {
  readonly rows: Uint32Array
}

/** Rows seen so far, and losses of evaluations. */
export interface Tally {
  readonly rows: number
  readonly evaluations: readonly number[]
}

export const plan = ({ batch, epochs }: LeastSquaresOptions) => planSteps(ROWS, batch, epochs)

/** loss = sum over all rows of |W x + b - t|^2 / 2 / their number; in the log its mean over the rows of the step. */
export class LeastSquares implements Task<Rows, number, Tally> {
  readonly nothing: Tally = { rows: 0, evaluations: [] }
  readonly adds: boolean
  readonly parameters: Parameter[]
  readonly statistics: Statistic[]
  readonly #device: Device
  readonly #options: LeastSquaresOptions
  #order: ReturnType<typeof orderRows> | null = null
  readonly #x: Tensor
  readonly #y: Tensor
  readonly #t: Tensor
  /** Gradients of a micro-batch, where the task adds them. */
  readonly #own: Tensor[]
  readonly #squares: Tensor
  readonly #scale: Tensor
  #loss = 0

  constructor(device: Device, options: LeastSquaresOptions) {
    this.#device = device
    this.#options = options
    this.adds = options.adds ?? false
    this.parameters = [
      makeParameter(device, 'weight', [O, D], START),
      makeParameter(device, 'bias', [O], BIAS, { decay: false }),
    ]
    this.statistics = [{ name: 'seen', value: device.tensor([1, D], { data: new Float32Array(D) }) }]
    this.#x = device.tensor([ROWS, D])
    this.#y = device.tensor([ROWS, O])
    this.#t = device.tensor([ROWS, O])
    this.#own = [device.tensor([O, D]), device.tensor([O])]
    this.#squares = device.tensor([1])
    this.#scale = device.tensor([2])
  }

  async updates(step: number): Promise<Rows[][]> {
    this.#order ??= orderRows(ALL, plan(this.#options), { seed: 4, from: step })
    const next = this.#order.next().value!
    if (next.step !== step) throw new Error(`step ${step} was asked for, the data are at ${next.step}`)
    this.#loss = 0
    const batches = microBatches(next.rows, this.#options.micro).map((rows) => ({ rows, weight: rows.length }))
    return Array.from({ length: this.#options.updates ?? 1 }, () => batches)
  }

  async compute({ rows }: Rows, { index, total }: Place): Promise<void> {
    const device = this.#device
    const residual = this.#residuals(rows)
    device.run('square_sums', { x: residual.view([residual.size]), sums: this.#squares }, { first: 0 })
    if (index === 0) this.#loss = 0
    this.#loss += (await this.#squares.readF32())[0] / 2
    this.#scale.write(Float32Array.of(0, 1 / total))
    device.run('clip_scale', { grad: residual.view([residual.size]), clip: this.#scale })
    const sets = this.adds && index > 0 ? this.#own : this.parameters.map(({ grad }) => grad)
    device.run('linear_grad_weight', { dy: residual, x: this.#x.view([rows.length, D]), dweight: sets[0] })
    device.run('bias_grad', { dy: residual, dbias: sets[1] })
    if (this.adds && index > 0) {
      for (const [i, { grad }] of this.parameters.entries()) {
        device.run('add', { x: grad.view([1, grad.size]), y: this.#own[i].view([1, grad.size]) })
      }
    }
    device.run('add', { x: this.statistics[0].value, y: this.#x.view([1, D]) })
  }

  #residuals(rows: Uint32Array): Tensor {
    const size = rows.length
    this.#x.write(Float32Array.from({ length: size * D }, (_, i) => x[rows[Math.floor(i / D)] * D + (i % D)]))
    this.#t.write(Float32Array.from({ length: size * O }, (_, i) => -targets[rows[Math.floor(i / O)] * O + (i % O)]))
    const [weight, bias] = this.parameters
    const y = this.#y.view([size, O])
    this.#device.run('linear', { x: this.#x.view([size, D]), weight: weight.value, y })
    this.#device.run('bias_add', { x: y, bias: bias.value })
    this.#device.run('add', { x: y, y: this.#t.view([size, O]) })
    return y
  }

  async sums(): Promise<number> {
    return this.#loss
  }

  record(tally: Tally, { step, lr, updates }: StepResult<number>): Recorded<Tally> {
    const { rows } = this.#rowsOf(step)
    const now = { ...tally, rows: tally.rows + rows }
    const [first] = updates
    return {
      tally: now,
      entries: [{ step, loss: first.sums / rows, grad_norm: first.norm, learning_rate: lr, num_rows: now.rows }],
    }
  }

  async evaluate(tally: Tally, step: number, _signal?: AbortSignal): Promise<Recorded<Tally>> {
    const residual = this.#residuals(Uint32Array.of(0, 1, 2))
    const loss = (await residual.readF32()).reduce((sum, value) => sum + value * value, 0) / 6
    return { tally: { ...tally, evaluations: [...tally.evaluations, loss] }, entries: [{ step, eval_loss: loss }] }
  }

  #rowsOf(step: number): { rows: number } {
    const { batch, stepsPerEpoch } = plan(this.#options)
    const begin = ((step - 1) % stepsPerEpoch) * batch
    return { rows: Math.min(ROWS, begin + batch) - begin }
  }

  destroy(): void {
    const own = [this.#x, this.#y, this.#t, ...this.#own, this.#squares, this.#scale, this.statistics[0].value]
    for (const tensor of own) tensor.destroy()
    for (const { value, grad, m, v } of this.parameters) for (const t of [value, grad, m, v]) t.destroy()
  }
}

export interface Reference {
  readonly weight: Float64Array
  readonly bias: Float64Array
  readonly losses: readonly number[]
  readonly norms: readonly number[]
}

/** The same training in float64, written out: gradients by loops, clipping, AdamW, the learning rates as given. */
export function fitInFloat64(
  options: LeastSquaresOptions,
  rates: readonly number[],
  { weightDecay, maxGradNorm }: { readonly weightDecay: number; readonly maxGradNorm: number },
): Reference {
  const w = Float64Array.of(...START, ...BIAS)
  const [m, v] = [new Float64Array(w.length), new Float64Array(w.length)]
  const [losses, norms]: number[][] = [[], []]
  for (const { step, rows } of orderRows(ALL, plan(options), { seed: 4 })) {
    const g = new Float64Array(w.length)
    let loss = 0
    for (const row of rows) {
      for (let o = 0; o < O; o++) {
        let residual = w[O * D + o] - targets[row * O + o]
        for (let d = 0; d < D; d++) residual += w[o * D + d] * x[row * D + d]
        loss += residual ** 2 / 2
        for (let d = 0; d < D; d++) g[o * D + d] += (residual * x[row * D + d]) / rows.length
        g[O * D + o] += residual / rows.length
      }
    }
    losses.push(loss / rows.length)
    const norm = Math.sqrt(g.reduce((sum, value) => sum + value ** 2, 0))
    norms.push(norm)
    const factor = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (norm + 1e-6)) : 1
    for (let i = 0; i < w.length; i++) {
      m[i] = 0.9 * m[i] + 0.1 * g[i] * factor
      v[i] = 0.999 * v[i] + 0.001 * (g[i] * factor) ** 2
      const move = m[i] / (1 - 0.9 ** (step + 1)) / (Math.sqrt(v[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
      w[i] = w[i] * (1 - (i < O * D ? rates[step] * weightDecay : 0)) - rates[step] * move
    }
  }
  return { weight: w.slice(0, O * D), bias: w.slice(O * D), losses, norms }
}
