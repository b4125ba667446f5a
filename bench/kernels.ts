// npm run bench -- kernels: checks every kernel against the float64 reference at realistic sizes, then times it on the devices
// present, beside two bounds measured on the same device: a copy (bandwidth) and a multiply-add loop (arithmetic).
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { Device } from '../src/device/device.ts'
import type { Dimension, Sizes } from '../src/device/kernel.ts'
import { openDevice } from '../src/device/open.ts'
import { BYTES, type Tensor } from '../src/device/tensor.ts'
import { requestAdapter } from '../src/device/webgpu/dawn.ts'
import { openWebgpu } from '../src/device/webgpu/runner.ts'
import { type KernelName, kernels } from '../src/generated/kernels.ts'
import { type Call, cases, expect, makeCall } from '../test/cases.ts'
import { measure, type Timing, table } from './measure.ts'

const HELP = `usage: npm run bench -- kernels [--kernel NAME[,NAME]] [--device KIND[,KIND]] [--no-robustness] [--save NAME]

  --kernel         only these kernels
  --device         of wasm:1 (one thread), wasm (all threads), webgpu, webgpu:software; default: all that are present
  --no-robustness  WebGPU without the guards that Dawn adds to loops and indices, in bounds and kernels alike
  --save           write the JSON lines to bench/results/NAME.jsonl`

/** Work per measurement on a GPU, so that waiting for the result is a small part of it. */
const BATCH_MS = 20
/** Rows whose traffic fits the last-level cache of a usual machine are marked: their GB/s are the cache's. */
const CACHE_BYTES = 2 ** 26

interface Row {
  readonly kernel: string
  readonly what: string
  readonly device: string
  readonly ms: number
  readonly spreadMs: number
  readonly runs: number
  readonly gflops: number
  readonly gbs: number
  /** Share of the larger of the two bounds; null for the bounds themselves. */
  readonly ofBound: number | null
  /** Workgroups of the call and threads of each; null on a CPU, which has neither. */
  readonly workgroups: number | null
  readonly threads: number | null
  /** Whether Dawn guards loops and indices; null on a CPU. */
  readonly robustness: 'on' | 'off' | null
  /** Against one thread in the same run. */
  readonly speedup: number | null
  readonly cached: boolean
}

interface Bounds {
  readonly gflops: number
  readonly gbs: number
}

type Run = (name: KernelName, tensors: Record<string, Tensor>, scalars: Readonly<Record<string, number>>) => void

/** Checks one call and times it; throws where the result is wrong, so that no wrong kernel has a time. */
async function checkedTime(device: Device, name: KernelName, call: Call, expected: Expected): Promise<Timing> {
  const tensors: Record<string, Tensor> = {}
  for (const [tensor, { shape, dtype, data }] of Object.entries(call.tensors))
    tensors[tensor] = device.tensor(shape, { dtype, label: tensor, data })
  const run = device.run.bind(device) as Run
  try {
    run(name, tensors, call.scalars)
    for (const [tensor, values] of Object.entries(expected))
      checkClose(await tensors[tensor]!.readF32(), values, name, call, device)
    const once = await measure(
      async () => {
        run(name, tensors, call.scalars)
        await device.done()
      },
      { budgetMs: 100, minRuns: 2 },
    )
    const times = Math.max(1, Math.ceil(BATCH_MS / once.ms))
    const timing = await measure(async () => {
      for (let i = 0; i < times; i++) run(name, tensors, call.scalars)
      await device.done()
    })
    return { ms: timing.ms / times, spreadMs: timing.spreadMs / times, runs: timing.runs * times }
  } finally {
    for (const tensor of Object.values(tensors)) tensor.destroy()
  }
}

type Expected = Record<string, Float64Array>

function checkClose(actual: Float32Array, expected: Float64Array, name: KernelName, call: Call, device: Device): void {
  const { longestSum, slack = 1 } = cases[name]
  const rms = Math.sqrt(expected.reduce((sum, value) => sum + value * value, 0) / expected.length)
  const limit = 8 * slack * 2 ** -24 * Math.sqrt(longestSum(call.sizes))
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!)
    if (!(error <= limit * Math.max(rms, Math.abs(expected[i]!))))
      throw new Error(`${name} on ${device.description}: element ${i} is ${actual[i]}, should be ${expected[i]}`)
  }
}

async function open(name: string, robustness: boolean): Promise<Device> {
  if (name === 'wasm:1') return openDevice('wasm', { threads: 1 })
  if (robustness || !name.startsWith('webgpu')) return openDevice(name as 'wasm')
  const adapter = await requestAdapter(name === 'webgpu' ? 'hardware' : 'software', { robustness })
  if (!adapter) throw new Error(`device: ${name} is not there`)
  return new Device(await openWebgpu(adapter))
}

async function present(wanted: string | undefined, robustness: boolean): Promise<Map<string, Device>> {
  const names = wanted?.split(',') ?? ['wasm:1', 'wasm', 'webgpu', 'webgpu:software']
  const devices = new Map<string, Device>()
  for (const name of names) {
    try {
      devices.set(name, await open(name, robustness))
    } catch (error) {
      if (wanted) throw error
      console.error(`not here: ${name} (${(error as Error).message})`)
    }
  }
  return devices
}

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      kernel: { type: 'string' },
      device: { type: 'string' },
      'no-robustness': { type: 'boolean', default: false },
      save: { type: 'string' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) {
    console.log(HELP)
    return
  }
  const all = Object.keys(cases) as KernelName[]
  const names = (values.kernel?.split(',') ?? all) as KernelName[]
  for (const name of names)
    if (!all.includes(name)) throw new Error(`bench: there is no kernel ${name}; the kernels are ${all.join(', ')}`)
  const robustness = !values['no-robustness']
  const devices = await present(values.device, robustness)
  const rows: Row[] = []
  const bounds = new Map<string, Bounds>()

  const time = async (name: KernelName): Promise<void> => {
    const { benchmarks, hardware = benchmarks } = cases[name]
    // What a device has no room for is left to the smaller sizes.
    const fits = (device: Device, sizes: Sizes): boolean => largestTensor(name, sizes) <= device.backend.maxTensorBytes
    const sizesOf = (device: Device) =>
      device.name === 'webgpu' && Object.values(hardware).every((sizes) => fits(device, sizes)) ? hardware : benchmarks
    const all = new Map([...Object.entries(benchmarks), ...Object.entries(hardware)])
    for (const [what, sizes] of all) {
      const takers = [...devices].filter(([, opened]) => what in sizesOf(opened))
      if (takers.length === 0) continue
      const call = makeCall(name, sizes)
      const expected = expect(name, call)
      const letters = lettersOf(name, call)
      const [flops, bytes] = [kernels[name].flops(letters), kernels[name].bytes(letters)]
      let single: number | null = null
      for (const [device, opened] of takers) {
        const { ms, spreadMs, runs } = await checkedTime(opened, name, call, expected)
        const bound = bounds.get(device)
        const boundMs = bound && Math.max(flops / bound.gflops, bytes / bound.gbs) / 1e6
        if (device === 'wasm:1') single = ms
        const gpu = opened.kind === 'webgpu'
        rows.push({
          kernel: name,
          what,
          device,
          ms,
          spreadMs,
          runs,
          gflops: flops / ms / 1e6,
          gbs: bytes / ms / 1e6,
          ofBound: boundMs ? boundMs / ms : null,
          workgroups: gpu ? kernels[name].dispatch(letters).reduce((product, n) => product * n, 1) : null,
          threads: gpu ? kernels[name].threads : null,
          robustness: gpu ? (robustness ? 'on' : 'off') : null,
          speedup: device === 'wasm' && single ? single / ms : null,
          cached: bytes < CACHE_BYTES,
        })
        console.error(`${name}, ${what}, ${device}: ${ms.toPrecision(4)} ms`)
      }
    }
  }
  // The bounds come first: the other rows are measured against them.
  await time('copy')
  await time('fma')
  for (const device of devices.keys()) {
    const best = (kernel: string, key: 'gflops' | 'gbs'): number =>
      Math.max(...rows.filter((row) => row.device === device && row.kernel === kernel).map((row) => row[key]))
    bounds.set(device, { gflops: best('fma', 'gflops'), gbs: best('copy', 'gbs') })
  }
  for (const name of names) if (name !== 'copy' && name !== 'fma') await time(name)

  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  console.log(`${machine}\n${[...devices].map(([name, device]) => `${name}: ${device.description}`).join('\n')}`)
  console.log(
    table(
      ['kernel', 'size', 'device', 'ms', '+-', 'GFLOP/s', 'GB/s', 'of bound', 'groups', 'threads', 'robust', 'speedup'],
      rows.map((row) => [
        row.kernel,
        row.what,
        row.device,
        row.ms.toPrecision(4),
        row.spreadMs.toPrecision(2),
        row.gflops.toFixed(2),
        `${row.gbs.toFixed(2)}${row.cached ? 'c' : ' '}`,
        row.ofBound === null ? '' : `${(100 * row.ofBound).toFixed(0)} %`,
        `${row.workgroups ?? '-'}`,
        `${row.threads ?? '-'}`,
        row.robustness ?? '-',
        row.speedup === null ? '' : `${row.speedup.toFixed(2)} x`,
      ]),
    ),
  )
  console.log(
    'c: the tensors fit the cache. of bound: the larger share of the copy and the fma of the same device, in the same state of robustness\ngroups: workgroups, of so many threads. robust: whether Dawn guards loops and indices. speedup: against wasm:1',
  )
  if (values.save) {
    mkdirSync('bench/results', { recursive: true })
    const lines = rows.map((row) => JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine, ...row }))
    writeFileSync(`bench/results/${values.save}.jsonl`, `${lines.join('\n')}\n`)
  }
  for (const device of devices.values()) await device.destroy()
  console.log(JSON.stringify({ machine, bounds: Object.fromEntries(bounds), rows }))
}

/** Bytes of the largest tensor at these sizes. */
function largestTensor(name: KernelName, sizes: Sizes): number {
  const length = (d: Dimension): number =>
    typeof d === 'number' ? d : typeof d === 'string' ? sizes[d]! : sizes[d.letter]! / d.by
  return Math.max(
    ...kernels[name].tensors.map(
      ({ shape, dtype }) => BYTES[dtype] * shape.reduce<number>((product, d) => product * length(d), 1),
    ),
  )
}

/** Letters and scalars of a call, as the header's cost functions want them. */
function lettersOf(name: KernelName, { tensors, scalars }: Call): Record<string, number> {
  const letters: Record<string, number> = { ...scalars }
  for (const { name: tensor, shape } of kernels[name].tensors)
    shape.forEach((letter, i) => {
      if (typeof letter === 'string') letters[letter] = tensors[tensor]!.shape[i]!
    })
  return letters
}
