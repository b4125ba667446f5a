// The recipe of a small reward model, by the commands that a user would give: rows, features, heads, debiasing, gate, calibration,
// the baselines beside it, and what held-out data say about all of them. models/nano/make_reward.ts and models/reproduce.ts run it.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { CalibrationResult } from '../src/evaluate/calibration.ts'
import type { PairAccuracy } from '../src/evaluate/pairs.ts'
import { gaussianBaseline } from './gaussian.ts'
import { TEST_SETS, writeRows } from './recipe_rows.ts'

const COMMAND = fileURLToPath(new URL('../dist/pinball.js', import.meta.url))

export interface Recipe {
  /** Model directory with the backbone and the tokenizer. */
  readonly model: string
  readonly data: string
  /** Folder for everything that is made; what is there already is taken as it is. */
  readonly work: string
  /** Rows of each set and part at most, the first by hash; all without it. */
  readonly limit?: number
  /** Units of the gate's hidden layers. */
  readonly hidden: number
}

export interface SystemAccuracy {
  /** By test set, then by subset. */
  readonly [set: string]: PairAccuracy & { readonly model: string; readonly comparison?: { readonly model: string } }
}

export interface Metrics {
  readonly levels: readonly number[]
  readonly alphas: Readonly<Record<string, number>>
  readonly penalties: Readonly<Record<string, number>>
  readonly calibration_offsets: Readonly<Record<string, { readonly items: number; readonly largest_offset: number }>>
  readonly gate: { readonly pairs: number; readonly accuracy: number }
  /** Of held-out ratings: the quantile heads calibrated and not, and point estimates with a Gaussian of their residuals. */
  readonly attributes: Readonly<
    Record<
      string,
      {
        readonly calibrated: CalibrationResult
        readonly plain: CalibrationResult
        readonly gaussian: CalibrationResult
      }
    >
  >
  readonly systems: Readonly<Record<string, SystemAccuracy>>
  readonly left_out: Readonly<Record<string, number>>
  readonly minutes: Readonly<Record<string, number>>
}

/** Systems that are compared: what the paper calls QRM and its baselines, and the mean of the attributes. */
export const SYSTEMS = ['QRM', 'ArmoRM-style', 'Bradley-Terry', 'fixed weights', 'mean of attributes'] as const
const FIXED_WEIGHTS = 'helpful=0.5,harmless=0.5'

// The bits of models/nano: its heads were fitted by rating, before there was a choice. Calibration and evaluation are by item.
const FIT = ['--alpha', 'auto', '--intercept', '--unit', 'rating']
const UNIT = 'item'
const TRAINING = ['--batch', '128', '--epochs', '3', '--seed', '1']
// A gate of few units learns from few pairs; rewards in [0, 1] have margins of hundredths, which the loss counts in twentieths.
const GATE = ['--layers', '3', '--temperature', '1', '--margin-scale', '20', ...TRAINING]

/** Runs all steps and gives the metrics; heads directories are in WORK/qrm, WORK/armorm, WORK/bradley_terry. */
export async function runRecipe(recipe: Recipe): Promise<Metrics> {
  const { model, work, hidden } = recipe
  const at = (...names: string[]) => join(work, ...names)
  const minutes: Record<string, number> = {}
  const timed = async <T>(name: string, step: () => Promise<T>): Promise<T> => {
    const start = performance.now()
    console.error(`== ${name}`)
    const result = await step()
    minutes[name] = Number(((performance.now() - start) / 60_000).toFixed(2))
    return result
  }
  mkdirSync(at('features'), { recursive: true })
  const { attributes } = writeRows(recipe)
  const leftOut: Record<string, number> = {}
  await timed('features', async () => {
    for (const name of ['heads', 'calibration', 'heldout', 'pairs', ...TEST_SETS]) {
      const labels = ['heads', 'calibration', 'heldout'].includes(name) ? ['--labels', attributes.join(',')] : []
      const files = ['--input', at('rows', `${name}.jsonl`), '--out', at('features', `${name}.safetensors`)]
      const made = await run('features', '--model', model, '--skip-invalid', ...files, ...labels)
      const { skipped } = JSON.parse(readFileSync(made.manifest as string, 'utf8')) as { skipped: number }
      leftOut[name] = skipped
    }
  })
  const features = (name: string) => ['--features', at('features', `${name}.safetensors`)]
  const heads = await timed('heads', () =>
    once(at('heads.json'), () => run('fit', ...features('heads'), ...FIT, '--out', at('heads.safetensors'))),
  )
  const debias = (own: string, out: string) =>
    run('debias', ...features('pairs'), '--heads', at(own), '--attribute', 'verbosity', '--out', at(out))
  const debiased = await timed('debias', () => debias('heads.safetensors', 'debiased.safetensors'))
  const gate = (own: string, out: string) =>
    run('gate', ...features('pairs'), '--heads', at(own), '--out', at(out), '--hidden', String(hidden), ...GATE)
  const trained = await timed('gate', () => gate('debiased.safetensors', 'qrm'))
  const offsets = await timed('calibrate', () =>
    run('calibrate', '--heads', at('qrm'), ...features('calibration'), '--unit', UNIT),
  )
  await timed('baselines', async () => {
    await run('ridge', ...features('heads'), '--out', at('ridge.safetensors'))
    await debias('ridge.safetensors', 'ridge_debiased.safetensors')
    await gate('ridge_debiased.safetensors', 'armorm')
    const bt = ['--margin-scale', '1', ...TRAINING, '--weight-decay', '0.1', '--lr', '3e-4']
    await run('bradley-terry', ...features('pairs'), '--out', at('bradley_terry'), ...bt)
  })
  return timed('evaluation', async () => {
    const suite = [
      'eval',
      '--suite',
      'calibration',
      '--model',
      at('qrm'),
      ...features('heldout'),
      '--reference',
      at('features/heads.safetensors'),
      '--unit',
      UNIT,
    ]
    const calibrated = (await run(...suite)) as { levels: number[]; attributes: Record<string, CalibrationResult> }
    const plain = (await run(...suite, '--no-calibration')) as typeof calibrated
    const gaussian = await gaussianBaseline(
      at('ridge.safetensors'),
      at('features/heads.safetensors'),
      at('features/heldout.safetensors'),
      calibrated.levels,
      UNIT,
    )
    const systems: Record<string, SystemAccuracy> = {}
    for (const [system, options] of Object.entries(choices(at))) {
      const own: Record<string, SystemAccuracy[string]> = {}
      for (const set of TEST_SETS) {
        const compare = system === 'QRM' ? ['--compare', at('armorm')] : []
        own[set] = named(await run('eval', '--suite', 'pairs', ...features(set), ...options, ...compare))
      }
      systems[system] = own
    }
    const names = Object.keys(calibrated.attributes)
    const byName = <T>(value: (name: string) => T) => Object.fromEntries(names.map((name) => [name, value(name)]))
    type Entry = Record<string, number> & { attribute: string; name: string }
    const entry = (list: unknown, key: 'attribute' | 'name', name: string) =>
      (list as Entry[]).find((one) => one[key] === name)!
    return {
      levels: calibrated.levels,
      alphas: heads.alpha as Record<string, number>,
      penalties: byName((name) => entry(debiased.attributes, 'attribute', name).penalty),
      calibration_offsets: byName((name) => {
        const { items, largest_offset } = entry(offsets.attributes, 'name', name)
        return { items, largest_offset }
      }),
      gate: { pairs: trained.pairs as number, accuracy: trained.accuracy as number },
      attributes: byName((name) => ({
        calibrated: calibrated.attributes[name],
        plain: plain.attributes[name],
        gaussian: gaussian[name],
      })),
      systems,
      left_out: leftOut,
      minutes,
    }
  })
}

/** An accuracy with its heads directories by name: where WORK lies is nothing that a reader of the metrics has. */
function named(result: Record<string, unknown>): SystemAccuracy[string] {
  const strip = (one: object) => ('model' in one ? { ...one, model: basename(String(one.model)) } : one)
  const { comparison } = result
  return strip(comparison ? { ...result, comparison: strip(comparison) } : result) as unknown as SystemAccuracy[string]
}

/** How each system is evaluated: its heads directory and its switches. */
function choices(at: (name: string) => string): Record<(typeof SYSTEMS)[number], string[]> {
  return {
    QRM: ['--model', at('qrm')],
    'ArmoRM-style': ['--model', at('armorm')],
    'Bradley-Terry': ['--model', at('bradley_terry')],
    'fixed weights': ['--model', at('qrm'), '--weights', FIXED_WEIGHTS],
    'mean of attributes': ['--model', at('qrm'), '--weights', 'mean'],
  }
}

/** Runs a command; its progress is shown, its JSON is the result. Throws where it fails; a fit that missed its tolerance is told. */
function run(...args: string[]): Promise<Record<string, unknown>> {
  const child = spawn(process.execPath, [COMMAND, ...args, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more
  })
  return new Promise((resolve, reject) => {
    child.on('close', (code) => {
      if (code === 0 || code === 3) resolve(JSON.parse(text) as Record<string, unknown>)
      else reject(new Error(`recipe: pinball ${args.join(' ')} ended with ${code}`))
    })
  })
}

/** The result of a step that is kept in a file. */
async function once(path: string, step: () => Promise<Record<string, unknown>>): Promise<Record<string, unknown>> {
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  const result = await step()
  // A kill leaves the whole file or none.
  writeFileSync(`${path}.tmp`, `${JSON.stringify(result)}\n`)
  renameSync(`${path}.tmp`, path)
  return result
}

/** Joins heads of WORK with the backbone of `model` in a new folder of WORK, and gives its path. */
export async function assemble({ model, work }: Recipe, heads = 'qrm'): Promise<string> {
  const out = join(work, `${heads}_model`)
  rmSync(out, { recursive: true, force: true })
  await run('assemble', '--backbone', model, '--heads', join(work, heads), '--out', out)
  return out
}
