// A bandit whose optimal policy is known, on the real trainer: draws, rewards, advantages, updates. Five seeds of each kind.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { trainRloo } from '../src/train/rloo/rloo.ts'
import { answerLogprobs, BANDIT_SETTINGS, banditModel, banditPrompts, banditReward, worthOf } from './bandit.ts'

const cpu = await openDevice('wasm', { threads: 1 })
const SEEDS = [0, 1, 2, 3, 4]
const LAMBDA = 1

interface Shift {
  readonly mean: number
  /** Standard error over the seeds. */
  readonly error: number
  readonly text: string
}

function shiftOf(values: readonly number[]): Shift {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)
  const error = Math.sqrt(variance / values.length)
  return { mean, error, text: `${mean.toFixed(3)}, standard error ${error.toFixed(3)}, z ${(mean / error).toFixed(1)}` }
}

/** How far training moves log p(answer 0) / p(other) away from the base, over the seeds. */
async function shiftsOf(lambda: number, others: readonly number[]): Promise<Shift[]> {
  const files = await banditModel()
  const base = await answerLogprobs(cpu, null)
  const found: number[][] = others.map(() => [])
  for (const seed of SEEDS) {
    const settings = { ...BANDIT_SETTINGS, seed, maxSteps: 200 }
    const { adapter } = await trainRloo(cpu, files, banditPrompts(), [banditReward(seed, lambda)], settings)
    const now = await answerLogprobs(cpu, adapter)
    for (const [i, other] of others.entries()) found[i].push(now[0] - now[other] - (base[0] - base[other]))
  }
  return found.map(shiftOf)
}

test('means alone: the uncertain answer stays as probable as the sure one; utility: mass moves to the sure one, as far as it should', async () => {
  const [neutral, worse] = await shiftsOf(0, [1, 2])
  const [aware, aside] = await shiftsOf(LAMBDA, [1, 2])
  const optimum = (other: number, lambda: number) =>
    (worthOf(0, lambda) - worthOf(other, lambda)) / BANDIT_SETTINGS.beta
  assert.is(optimum(1, 0), 0)
  const told = `neutral ${neutral.text}; aware ${aware.text}, optimum ${optimum(1, LAMBDA)}`
  // Found: z -0.2 and 20 (mean 2.31). Of five seeds, |z| is above 4.6 by chance once in a hundred (t of 4 degrees).
  assert.ok(Math.abs(neutral.mean / neutral.error) < 4.6, told)
  assert.ok(aware.mean / aware.error > 10, told)
  assert.ok((aware.mean - neutral.mean) / Math.hypot(aware.error, neutral.error) > 10, told)
  // How far they end from their optimum: the last steps are noisy, and 200 do not quite reach it.
  const near = (shift: Shift, wanted: number) =>
    assert.ok(
      Math.abs(shift.mean - wanted) < 0.15 * optimum(1, LAMBDA) + 2 * shift.error,
      `${told}; ${shift.text}, ${wanted}`,
    )
  near(neutral, 0)
  near(aware, optimum(1, LAMBDA))
  near(worse, optimum(2, 0))
  near(aside, optimum(2, LAMBDA))
})

test('device closes', () => cpu.destroy())

test.run()
