// npm run bench -- gate: trains a gate on made-up pairs, and compares its arithmetic with the linear map's and its memory with what
// it should be. The pairs are made once, in a process of their own, and kept in .cache.
import { spawnSync } from 'node:child_process'
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { randomBits } from '../src/data/random.ts'
import type { Device } from '../src/device/device.ts'
import { type DeviceKind, openDevice } from '../src/device/open.ts'
import { openFile } from '../src/files/disk.ts'
import type { HeadsFile } from '../src/reward/heads_file.ts'
import { openPairs, type PairFile } from '../src/reward/pair_file.ts'
import { GateModel } from '../src/train/gating.ts'
import { largestBatch, planPairs, splitPairs } from '../src/train/pair_batches.ts'
import { gateStates } from '../src/train/pair_rewards.ts'
import { trainPairs } from '../src/train/pair_task.ts'
import { measure, table } from './measure.ts'

const HELP = `usage: npm run bench -- gate [options]

  --pairs N       default 200000 (of 4096 columns: 4.9 GB of disk in .cache)
  --columns N     default 4096
  --hidden N      default 1024
  --batch N       default 1024
  --epochs N      default 3
  --device NAME   wasm (default), webgpu or webgpu:software
  --threads N     default: all cores
  --save NAME     append a line to bench/results/NAME.jsonl
  --make          only make the pairs`

const OPTIONS = {
  pairs: { type: 'string', default: '200000' },
  columns: { type: 'string', default: '4096' },
  hidden: { type: 'string', default: '1024' },
  batch: { type: 'string', default: '1024' },
  epochs: { type: 'string', default: '3' },
  device: { type: 'string', default: 'wasm' },
  threads: { type: 'string' },
  save: { type: 'string' },
  make: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const

const LAYERS = 3
const ATTRIBUTES = 19
/** Share of the linear map's rate that training must reach on the CPU. */
const BAR = 0.6

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: OPTIONS })
  if (values.help) {
    console.log(HELP)
    return
  }
  const whole = (name: 'pairs' | 'columns' | 'hidden' | 'batch' | 'epochs') => {
    if (!/^[1-9]\d*$/.test(values[name]))
      throw new Error(`bench: --${name} must be a whole number above 0, got ${values[name]}`)
    return Number(values[name])
  }
  const size = { pairs: whole('pairs'), columns: whole('columns') }
  const path = fileURLToPath(
    new URL(`../.cache/gate/pairs-${size.pairs}-${size.columns}-2.safetensors`, import.meta.url),
  )
  if (values.make) {
    makePairs(path, size)
    return
  }
  if (!existsSync(path)) makeAlone(path, args)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const source = await openFile(path)
  try {
    const pairs = await openPairs([source])
    const shape = { ...size, hidden: whole('hidden'), batch: whole('batch'), epochs: whole('epochs') }
    await train(device, pairs, shape, values.save)
  } finally {
    await source.close()
    await device.destroy()
  }
}

interface Shape {
  readonly pairs: number
  readonly columns: number
  readonly hidden: number
  readonly batch: number
  readonly epochs: number
}

async function train(device: Device, pairs: PairFile, shape: Shape, save?: string): Promise<void> {
  const { columns, hidden, batch, epochs } = shape
  const load = loadavg()[0]
  const linear = await linearRate(device, shape)
  const before = rss()
  const begin = performance.now()
  const states = await gateStates(device, pairs, makeHeads(columns))
  const rewardsMs = performance.now() - begin
  const rewardsPeak = peak()
  const settings = { hidden, layers: LAYERS, temperature: 10, logitScale: 1, norm: 'batch', seed: 0 } as const
  const split = splitPairs(pairs, 0.1, 0)
  const { steps } = planPairs(split, batch, epochs)
  const model = new GateModel(device, columns, ATTRIBUTES, largestBatch(split, batch) * states.sides, settings)
  const start = performance.now()
  let [trainMs, waited] = [0, start]
  // Waiting for rows that were not read in time shows in a step; what the loop itself does is in all of them.
  const end = await trainPairs({
    device,
    model,
    states,
    split,
    settings: { lr: 3e-4, weightDecay: 1e-3, batch, epochs, marginScale: 1, validation: 0.1, seed: 0 },
    onStep: ({ step }) => {
      const now = performance.now()
      if (now - waited > 30_000) console.error(`step ${step} of ${steps}, ${((now - start) / 1000).toFixed(0)} s`)
      if (now - waited > 30_000) waited = now
    },
  })
  trainMs = performance.now() - start
  const seen = epochs * split.training.length
  const flops = seen * pairFlops(columns, hidden) + epochs * split.validation.length * forwardFlops(columns, hidden)
  const rate = flops / trainMs / 1e6
  const parameters = model.parameters.reduce((sum, { value }) => sum + value.size, 0)
  model.destroy()
  const last = end.tally.epochs[end.tally.epochs.length - 1]
  const batchMiB = (batch * columns * 4) / 2 ** 20
  // Two batches of states; parameters with gradient and moments; of each layer z, y, and two gradients in all.
  const expected = 2 * batchMiB + (16 * parameters + 4 * batch * hidden * (2 * LAYERS + 2)) / 2 ** 20
  const grown = peak() - before
  const percent = `${((100 * rate) / linear).toFixed(0)} %`
  console.log(
    table(
      ['what', 'value'],
      [
        ['device', device.description],
        ['linear map', `${linear.toFixed(1)} GFLOP/s`],
        ['training', `${rate.toFixed(1)} GFLOP/s, ${percent} of it`],
        ['pairs a second', (seen / (trainMs / 1000)).toFixed(0)],
        ['training took', `${(trainMs / 1000).toFixed(1)} s, ${end.step} steps`],
        ['rewards took', `${(rewardsMs / 1000).toFixed(1)} s, ${shape.pairs} pairs`],
        ['memory grew by', `${grown.toFixed(0)} MiB at most (rewards: ${(rewardsPeak - before).toFixed(0)})`],
        [
          'of which expected',
          `${expected.toFixed(0)} MiB: two batches of ${batchMiB.toFixed(0)}, weights, activations`,
        ],
        ['accuracy', `${last.validation_accuracy?.toFixed(3)} held out, ${last.accuracy.toFixed(3)} in the last epoch`],
      ],
    ),
  )
  if (device.kind === 'wasm' && rate < BAR * linear) console.log(`below the bar of ${100 * BAR} %`)
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  const line = JSON.stringify({
    date: new Date().toISOString().slice(0, 10),
    machine,
    load,
    device: device.description,
    part: 'gate',
    ...shape,
    linear,
    rate,
    share: rate / linear,
    ms: trainMs,
    rewardsMs,
    rows_per_second: seen / (trainMs / 1000),
    memory_mib: grown,
    expected_mib: expected,
    accuracy: last.validation_accuracy,
  })
  if (save) {
    mkdirSync('bench/results', { recursive: true })
    appendFileSync(`bench/results/${save}.jsonl`, `${line}\n`)
  }
  console.log(line)
}

const rss = () => process.memoryUsage().rss / 2 ** 20
/** The most that was ever resident, in MiB. */
const peak = () => process.resourceUsage().maxRSS / 1024

function forwardFlops(columns: number, hidden: number): number {
  return 2 * (columns * hidden + (LAYERS - 1) * hidden * hidden + hidden * ATTRIBUTES)
}

/** Of the matrix products alone: forward, gradients of the weights, and of all inputs but the first. */
function pairFlops(columns: number, hidden: number): number {
  return 3 * forwardFlops(columns, hidden) - 2 * columns * hidden
}

/** GFLOP/s of the first layer's map, the largest of the products. */
async function linearRate(device: Device, { columns, hidden, batch }: Shape): Promise<number> {
  const x = device.tensor([batch, columns], { data: new Float32Array(batch * columns).fill(0.5) })
  const weight = device.tensor([hidden, columns], { data: new Float32Array(hidden * columns).fill(0.5) })
  const y = device.tensor([batch, hidden])
  const { ms } = await measure(async () => {
    device.run('linear', { x, weight, y })
    await device.done()
  })
  for (const tensor of [x, weight, y]) tensor.destroy()
  return (2 * batch * columns * hidden) / ms / 1e6
}

/** Heads whose attribute m is column m. */
function makeHeads(columns: number): HeadsFile {
  const weight = new Float32Array(ATTRIBUTES * columns)
  for (let m = 0; m < ATTRIBUTES; m++) weight[m * columns + m] = 1
  const attributes = Array.from({ length: ATTRIBUTES }, (_, m) => `a${m}`)
  return { name: 'heads', attributes, levels: [0.5], columns, weight, bias: null, transform: null, fingerprint: null }
}

// Making the pairs

function makeAlone(path: string, args: readonly string[]): void {
  console.error(`making pairs, once, in ${path}`)
  const run = fileURLToPath(new URL('run.ts', import.meta.url))
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', run, 'gate', ...args, '--make'], {
    stdio: 'inherit',
  })
  if (status !== 0) throw new Error('bench: could not make the pairs')
}

const BLOCK = 512
const MARKED = 16

/**
 * Noise in bf16, with something to learn: the chosen response of a pair is better in attribute 0 where the first columns of the
 * prompt are 2, and in attribute 1 where they are -2, and worse in the other of the two.
 */
function makePairs(path: string, { pairs, columns }: { readonly pairs: number; readonly columns: number }): void {
  mkdirSync(dirname(path), { recursive: true })
  const sides = pairs * 2 * columns * 2
  const prompts = pairs * columns * 2
  const header = JSON.stringify({
    embeddings: { dtype: 'BF16', shape: [pairs, 2, columns], data_offsets: [0, sides] },
    prompt_embeddings: { dtype: 'BF16', shape: [pairs, columns], data_offsets: [sides, sides + prompts] },
    prompt_ids: { dtype: 'I64', shape: [pairs], data_offsets: [sides + prompts, sides + prompts + 8 * pairs] },
  })
  const text = new TextEncoder().encode(header.padEnd(Math.ceil(header.length / 8) * 8))
  const temporary = `${path}.tmp`
  const file = openSync(temporary, 'w')
  writeSync(file, new Uint8Array(BigUint64Array.of(BigInt(text.length)).buffer))
  writeSync(file, text)
  // Uniform noise of mean 0 and deviation 1.
  const noise = Uint16Array.from({ length: 65536 }, (_, i) => bf16(Math.sqrt(12) * ((i + 0.5) / 65536 - 0.5)))
  const value = (stream: number, i: number) => noise[randomBits(1, stream, i) >>> 16]
  const upward = (pair: number) => value(0, pair) < 0x8000
  const write = (rows: number, put: (row: number, values: Uint16Array) => void) => {
    const block = new Uint16Array(BLOCK * columns)
    for (let first = 0; first < rows; first += BLOCK) {
      const count = Math.min(BLOCK, rows - first)
      for (let i = 0; i < count; i++) put(first + i, block.subarray(i * columns, (i + 1) * columns))
      writeSync(file, new Uint8Array(block.buffer, 0, count * columns * 2))
    }
  }
  const fill = (row: number, values: Uint16Array, stream: number) => {
    for (let d = 0; d < columns; d++) values[d] = value(stream, row * columns + d)
  }
  write(2 * pairs, (row, values) => {
    fill(row, values, 1)
    const better = row % 2 === 0
    for (const m of [0, 1]) values[m] = bf16(better === ((m === 0) === upward(row >> 1)) ? 0.5 : -0.5)
  })
  write(pairs, (row, values) => {
    fill(row, values, 2)
    for (let d = 0; d < MARKED; d++) values[d] = bf16(upward(row) ? 2 : -2)
  })
  writeSync(file, new Uint8Array(BigInt64Array.from({ length: pairs }, (_, i) => BigInt(i)).buffer))
  closeSync(file)
  renameSync(temporary, path)
}

function bf16(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16
}
