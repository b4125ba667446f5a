// The speed of the solver's Gram panels beside that of the linear map, counted from outside while the solver works.
import { openDevice } from '../../src/device/open.ts'
import { Team } from '../../src/solver/team.ts'
import { random } from '../../test/random.ts'
import { measure } from '../measure.ts'
import { seconds, share } from './parts.ts'

/** What the panels came to, of all solvers of this process since the watch began. */
export interface GramWork {
  /** Multiplications and additions in the lower half of the Gram matrices. */
  flops: number
  packMs: number
  productMs: number
  calls: number
}

/** Counts and times every pack and every product of a panel from now on. */
export function watchGram(): GramWork {
  const work: GramWork = { flops: 0, packMs: 0, productMs: 0, calls: 0 }
  const run = Team.prototype.run
  Team.prototype.run = function (this: Team, name, args, length, piece) {
    const packs = name.startsWith('pack_')
    if (name !== 'syrk' && !packs) return run.call(this, name, args, length, piece)
    const begin = performance.now()
    run.call(this, name, args, length, piece)
    const ms = performance.now() - begin
    if (packs) {
      work.packMs += ms
      return
    }
    // syrk(left, right, depth, matrix, row stride, size, first): rows first .. size - 1, columns up to the diagonal.
    const [, , depth, , , size, first] = args
    work.flops += depth * (size * (size + 1) - first * (first + 1))
    work.productMs += ms
    work.calls++
  }
  return work
}

export interface GramRates extends GramWork {
  /** GFLOP/s of packing and products together, and of the products alone. */
  readonly rate: number
  readonly productRate: number
  /** GFLOP/s of the linear map on as many threads. */
  readonly linear: number
}

/** Throws where no panel was seen: the benchmark and the solver have come apart. */
export function gramRates(work: GramWork, linear: number): GramRates {
  const { flops, packMs, productMs } = work
  if (!(flops > 0 && packMs > 0))
    throw new Error('bench: the solver made no Gram panel that was seen, so their speed is not known')
  return { ...work, rate: flops / (packMs + productMs) / 1e6, productRate: flops / productMs / 1e6, linear }
}

/** Rows for a table of phases. */
export function gramLines({ flops, packMs, productMs, calls, rate, productRate, linear }: GramRates): string[][] {
  return [
    ['linear map 512 x 2048 x 2048, f32', `${linear.toFixed(1)} GFLOP/s`, ''],
    ['Gram panels, with packing', `${rate.toFixed(1)} GFLOP/s`, `${share(rate, linear)} of the linear map`],
    ['  their products alone', `${productRate.toFixed(1)} GFLOP/s`, `${share(productRate, linear)} of the linear map`],
    ['  work', `${(flops / 1e9).toFixed(1)} GFLOP`, `${calls} panels, ${seconds(packMs)} + ${seconds(productMs)}`],
  ]
}

/** GFLOP/s of the linear map [512, 2048] x [2048, 2048] in f32 on the CPU. */
export async function linearRate(threads?: number): Promise<number> {
  const [N, D, O] = [512, 2048, 2048]
  const device = await openDevice('wasm', { threads })
  const x = device.tensor([N, D], { data: random(1).normal(N * D) })
  const weight = device.tensor([O, D], { data: random(2).normal(O * D) })
  const y = device.tensor([N, O])
  const { ms } = await measure(async () => {
    device.run('linear', { x, weight, y })
    await device.done()
  })
  await device.destroy()
  return (2 * N * D * O) / ms / 1e6
}
