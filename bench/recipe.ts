// npm run bench -- recipe: the whole recipe at the paper's size on made-up states, by the commands that a user would give, with the
// time and the peak memory of each: features (written as `pinball features` lays them out), heads, debiasing, gate, calibration,
// evaluation.
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { TensorData } from '../src/files/safetensors.ts'
import { table } from './measure.ts'
import { seconds } from './solver/parts.ts'
import { makeRatings, openStates } from './solver/states.ts'

const HELP = `usage: npm run bench -- recipe [--rows N] [--columns N] [--attributes N] [--pairs N] [--levels N] [--keep]

  --rows N         rated rows of every attribute; default 60000
  --columns N      width of the states; default 4096
  --attributes N   default 19
  --pairs N        pairs for the gate, and a tenth as many for the evaluation; default 20000
  --levels N       default 19
  --keep           leave the files in .cache/recipe`

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const FOLDER = join(ROOT, '.cache/recipe')
const BLOCK = 1024
/** The bar: all stages within this. */
const LIMIT_GIB = 16
const VERBOSITY = 'helpsteer-verbosity'

interface Sizes {
  readonly rows: number
  readonly columns: number
  readonly attributes: number
  readonly pairs: number
  readonly levels: number
}

interface Stage {
  readonly name: string
  readonly ms: number
  readonly peakMiB: number
  readonly result: Record<string, unknown>
}

export async function main(args: string[]): Promise<void> {
  const whole = { type: 'string' } as const
  const { values } = parseArgs({
    args,
    options: {
      rows: whole,
      columns: whole,
      attributes: whole,
      pairs: whole,
      levels: whole,
      keep: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) return console.log(HELP)
  const size = (name: keyof Sizes, usual: number): number => {
    const value = Number(values[name] ?? usual)
    if (!(Number.isSafeInteger(value) && value > 0))
      throw new Error(`bench: --${name} must be a whole number above 0, got ${values[name]}`)
    return value
  }
  const sizes: Sizes = {
    rows: size('rows', 60_000),
    columns: size('columns', 4096),
    attributes: size('attributes', 19),
    pairs: size('pairs', 20_000),
    levels: size('levels', 19),
  }
  mkdirSync(FOLDER, { recursive: true })
  const stages: Stage[] = []
  stages.push(await writeFeatures(sizes))
  const file = (name: string) => join(FOLDER, name)
  const command = async (name: string, ...rest: string[]) => {
    const stage = await run(name, [...rest, '--json'])
    stages.push(stage)
    console.error(`${name}: ${seconds(stage.ms)}, peak ${stage.peakMiB.toFixed(0)} MiB`)
    return stage.result
  }
  for (const old of ['heads.safetensors', 'debiased.safetensors', 'model'])
    rmSync(file(old), { recursive: true, force: true })
  const heads = ['--heads', file('debiased.safetensors')]
  const fit = (await command(
    'fit',
    '--features',
    file('ratings.safetensors'),
    '--levels',
    String(sizes.levels),
    '--out',
    file('heads.safetensors'),
  )) as { fits: { gap: number; status: string }[] }
  await command(
    'debias',
    '--features',
    file('pairs.safetensors'),
    '--heads',
    file('heads.safetensors'),
    '--attribute',
    VERBOSITY,
    '--out',
    heads[1],
  )
  await command('gate', '--features', file('pairs.safetensors'), ...heads, '--out', file('model'))
  await command('calibrate', '--heads', file('model'), '--features', file('held_out.safetensors'))
  const pairs = await command(
    'eval',
    '--suite',
    'pairs',
    '--model',
    file('model'),
    '--features',
    file('test_pairs.safetensors'),
  )
  await command('eval', '--suite', 'calibration', '--model', file('model'), '--features', file('held_out.safetensors'))

  const worst = Math.max(...fit.fits.map(({ gap }) => gap))
  if (!fit.fits.every(({ status }) => status === 'optimal')) throw new Error(`bench: a fit has a gap of ${worst}`)
  const peak = Math.max(...stages.map(({ peakMiB }) => peakMiB))
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  const { rows, columns, attributes, levels } = sizes
  console.log(
    `recipe: ${attributes} attributes x ${rows} rows x ${columns}, ${levels} levels, ${sizes.pairs} pairs; ${machine}`,
  )
  console.log(
    table(
      ['stage', 'time', 'peak MiB'],
      stages.map(({ name, ms, peakMiB }) => [name, seconds(ms), peakMiB.toFixed(0)]),
    ),
  )
  console.log(
    `largest peak ${(peak / 1024).toFixed(2)} GiB (allowed: ${LIMIT_GIB}); largest gap ${worst.toExponential(1)}; pair accuracy ${pairs.accuracy}`,
  )
  if (peak > LIMIT_GIB * 1024) throw new Error(`bench: a stage takes ${peak} MiB, more than ${LIMIT_GIB} GiB`)
  if (!values.keep) rmSync(FOLDER, { recursive: true })
  const times = stages.map(({ name, ms, peakMiB }) => ({ name, ms, peakMiB }))
  console.log(
    JSON.stringify({
      date: new Date().toISOString().slice(0, 10),
      machine,
      ...sizes,
      worstGap: worst,
      accuracy: pairs.accuracy,
      stages: times,
    }),
  )
}

/** Runs a command of dist/pinball.js; its progress is shown, its JSON is the result. Throws where it fails. */
function run(name: string, args: readonly string[]): Promise<Stage> {
  const begin = performance.now()
  const child = spawn(process.execPath, [join(ROOT, 'dist/pinball.js'), name, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let peakMiB = 0
  // The system keeps the peak of every process; it is read until the process ends.
  const watch = setInterval(() => {
    try {
      const [, kib] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? []
      peakMiB = Math.max(peakMiB, Number(kib ?? 0) / 1024)
    } catch {
      // It has just ended, or this is no Linux: then the peak is unknown and stays 0.
    }
  }, 50)
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more
  })
  return new Promise((resolve, reject) => {
    child.on('close', (code) => {
      clearInterval(watch)
      if (code !== 0) reject(new Error(`bench: pinball ${name} ${args.join(' ')} ended with ${code}`))
      else
        resolve({ name, ms: performance.now() - begin, peakMiB, result: JSON.parse(text) as Record<string, unknown> })
    })
  })
}

/** Attributes as the paper's, the fifth of them is the one to be debiased. */
function attributeNames(count: number): string[] {
  return Array.from({ length: count }, (_, m) => (m === Math.min(4, count - 1) ? VERBOSITY : `attribute-${m}`))
}

/**
 * Ratings of rows, held-out ratings, pairs and test pairs, all of one stream of states. The better side of a pair is the one with
 * the larger sum of continuous ratings, so that there is something to be learnt.
 */
async function writeFeatures(sizes: Sizes): Promise<Stage> {
  const { rows, columns, attributes, pairs } = sizes
  const begin = performance.now()
  const heldOut = Math.min(10_000, Math.ceil(rows / 6))
  const testPairs = Math.ceil(pairs / 10)
  const first = { ratings: 0, heldOut: rows, pairs: rows + heldOut, test: rows + heldOut + 3 * pairs }
  const total = first.test + 3 * testPairs
  const label = (m: number, type: 'five' | 'continuous') => makeRatings({ rows: total, columns, type, attribute: m })
  const names = attributeNames(attributes)
  const labels = names.map((_, m) => label(m, 'five'))
  const quality = new Float32Array(total)
  for (let m = 0; m < attributes; m++) for (const [i, value] of label(m, 'continuous').entries()) quality[i] += value
  const maker = await openStates(columns)
  const metadata = { attributes: JSON.stringify(names), model: 'made-up states' }
  try {
    for (const [name, from, count] of [
      ['ratings', first.ratings, rows],
      ['held_out', first.heldOut, heldOut],
    ] as const) {
      const data = new Float32Array(count * attributes)
      for (let i = 0; i < count; i++)
        for (let m = 0; m < attributes; m++) data[i * attributes + m] = labels[m][from + i]
      const embeddings = { name: 'embeddings', shape: [count, columns] }
      const tensor: TensorData = { name: 'labels', dtype: 'F32', shape: [count, attributes], data }
      await write(name, [embeddings], [tensor], metadata, (at, many) => maker.block(from + at, many))
    }
    for (const [name, from, count] of [
      ['pairs', first.pairs, pairs],
      ['test_pairs', first.test, testPairs],
    ] as const) {
      const ids: TensorData = {
        name: 'prompt_ids',
        dtype: 'I64',
        shape: [count],
        data: BigInt64Array.from({ length: count }, (_, i) => BigInt(i)),
      }
      // Rows from, from + 1: the sides of pair 0, and so on; the prompts come behind all sides.
      const sides = async (at: number, many: number) => {
        const block = await maker.block(from + at, many)
        for (let i = 0; i + 1 < many; i += 2) {
          if (quality[from + at + i] >= quality[from + at + i + 1]) continue
          const worse = block.slice(i * columns, (i + 1) * columns)
          block.copyWithin(i * columns, (i + 1) * columns, (i + 2) * columns)
          block.set(worse, (i + 1) * columns)
        }
        return block
      }
      const prompts = (at: number, many: number) => maker.block(from + 2 * count + at, many)
      const shapes = [
        { name: 'embeddings', shape: [count, 2, columns] },
        { name: 'prompt_embeddings', shape: [count, columns] },
      ]
      await write(name, shapes, [ids], metadata, (at, many, which) =>
        which === 0 ? sides(at, many) : prompts(at, many),
      )
    }
  } finally {
    await maker.close()
  }
  return { name: 'features', ms: performance.now() - begin, peakMiB: process.resourceUsage().maxRSS / 1024, result: {} }
}

interface Wide {
  readonly name: string
  readonly shape: readonly number[]
}

/** Writes a file whose bf16 tensors `wide` come in blocks of rows, and the others from memory. */
async function write(
  name: string,
  wide: readonly Wide[],
  small: readonly TensorData[],
  metadata: Record<string, string>,
  block: (at: number, count: number, which: number) => Promise<Uint16Array<ArrayBuffer>>,
): Promise<void> {
  const path = join(FOLDER, `${name}.safetensors`)
  const columns = wide[0].shape[wide[0].shape.length - 1]
  const elements = ({ shape }: Wide) => shape.reduce((product, n) => product * n, 1)
  // The header is laid out by hand: the library's encoder wants all values in memory.
  const header: Record<string, unknown> = { __metadata__: metadata }
  let at = 0
  for (const tensor of wide) {
    header[tensor.name] = { dtype: 'BF16', shape: tensor.shape, data_offsets: [at, at + 2 * elements(tensor)] }
    at += 2 * elements(tensor)
  }
  for (const { name: own, dtype, shape, data } of small) {
    header[own] = { dtype, shape, data_offsets: [at, at + data.byteLength] }
    at += data.byteLength
  }
  const text = JSON.stringify(header)
  const padded = text.padEnd(Math.ceil(text.length / 8) * 8)
  const file = openSync(`${path}.tmp`, 'w')
  writeSync(file, new BigUint64Array([BigInt(padded.length)]))
  writeSync(file, padded)
  for (const [which, tensor] of wide.entries()) {
    const rows = elements(tensor) / columns
    for (let row = 0; row < rows; row += BLOCK) writeSync(file, await block(row, Math.min(BLOCK, rows - row), which))
  }
  for (const { data } of small) writeSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  closeSync(file)
  renameSync(`${path}.tmp`, path)
}
