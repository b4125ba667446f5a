// npm run bench -- device: what the host pays for a call, a tensor and a read-back, beside what Dawn itself costs in the same run.
import { parseArgs } from 'node:util'
import type { Device } from '../src/device/device.ts'
import { type DeviceKind, openDevice } from '../src/device/open.ts'
import type { Step } from '../src/device/step.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { requestAdapter } from '../src/device/webgpu/dawn.ts'
import { type KernelName, kernels } from '../src/generated/kernels.ts'
import { shaderTexts } from '../src/generated/shader_texts.ts'
import { measure, table } from './measure.ts'

const HELP = `usage: npm run bench -- device [options]

  --device LIST   default webgpu:software,wasm
  --threads LIST  of WASM, default 1,2
  --layers N      a plan is so many layers of 15 calls, default 8 (which no submission interrupts)
  --rounds N      default 100
  --steps N       steps in the search for leaks, default 1000`

const OPTIONS = {
  device: { type: 'string', default: 'webgpu:software,wasm' },
  threads: { type: 'string', default: '1,2' },
  layers: { type: 'string', default: '8' },
  rounds: { type: 'string', default: '100' },
  steps: { type: 'string', default: '1000' },
  help: { type: 'boolean', default: false },
} as const

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: OPTIONS })
  if (values.help) {
    console.log(HELP)
    return
  }
  const [layers, rounds, steps] = [Number(values.layers), Number(values.rounds), Number(values.steps)]
  const results: object[] = []
  for (const kind of values.device.split(',') as DeviceKind[]) {
    for (const threads of kind === 'wasm' ? values.threads.split(',').map(Number) : [undefined]) {
      const device = await openDevice(kind, { threads })
      const dawn = device.kind === 'webgpu' ? await openRaw(kind === 'webgpu' ? 'hardware' : 'software', layers) : null
      try {
        const result = {
          device: device.description,
          calls: await timeCalls(device, dawn, layers, rounds),
          memory: await timeMemory(device),
          leaks: await leaks(device, steps),
        }
        print(result)
        results.push(result)
      } finally {
        dawn?.destroy()
        await device.destroy()
      }
    }
  }
  console.log(JSON.stringify({ node: process.version, layers, rounds, steps, results }))
}

/** Microseconds a call: median of the rounds, in which the ways take turns. */
interface CallCosts {
  /** setPipeline, setBindGroup and dispatchWorkgroups, all made before. */
  readonly dawn?: number
  readonly run: number
  /** `run` on tensors that are made and freed in every round, with their cost. */
  readonly fresh: number
  readonly replay: number
  /** Median over rounds of what `replay` costs more than Dawn alone. */
  readonly replayBeyondDawn?: number
  /** New scalars for every step, without recording it. */
  readonly set: number
}

const [N, D, H, G, C, F] = [1, 64, 4, 2, 16, 128]
const SIZES = { x: [N, D], h: [N, D], rstd: [N], q: [N, D], k: [N, G * C], v: [N, G * C], mixed: [N, D], lse: [N, H] }
const MORE = { delta: [N, D], gate: [N, F], up: [N, F], act: [N, F], cos: [1, C / 2], sin: [1, C / 2] }

type Layer = Record<'norm' | 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down', Tensor>
type Call = (name: KernelName, tensors: Record<string, Tensor>, scalars: Record<string, number>) => void

function makeLayer(device: Device): Layer {
  const map = (...shape: number[]) =>
    device.tensor(shape, { label: 'weight', data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.01) })
  const kv = () => map(G * C, D)
  return { norm: map(D), q: map(D, D), k: kv(), v: kv(), o: map(D, D), gate: map(F, D), up: map(F, D), down: map(D, F) }
}

function makeBuffers(device: Device): Record<string, Tensor> {
  const buffers: Record<string, Tensor> = {}
  for (const [label, shape] of Object.entries({ ...SIZES, ...MORE })) buffers[label] = device.tensor(shape, { label })
  buffers.first = device.tensor([N], { label: 'first', dtype: 'u32' })
  return buffers
}

/** The 15 calls of a Llama layer for one token, on tensors so small that the kernels themselves cost next to nothing. */
function layerCalls(call: Call, { norm, ...w }: Layer, b: Record<string, Tensor>): void {
  const { x, h, rstd, q, k, v, mixed, lse, delta, gate, up, act, cos, sin, first } = b as Record<string, Tensor>
  const linear = (from: Tensor, weight: Tensor, to: Tensor) => call('linear_vec', { x: from, weight, y: to }, {})
  call('rms_norm', { x: x!, weight: norm, y: h!, rstd: rstd! }, { eps: 1e-5 })
  linear(h!, w.q, q!)
  linear(h!, w.k, k!)
  linear(h!, w.v, v!)
  call('rope', { x: q!.view([N, H, 2, C / 2]), cos: cos!, sin: sin!, position: first! }, {})
  call('rope', { x: k!.view([N, G, 2, C / 2]), cos: cos!, sin: sin!, position: first! }, {})
  const [queries, keys, values] = [q!.view([N, H, C]), k!.view([N, G, C]), v!.view([N, G, C])]
  const tensors = { q: queries, k: keys, v: values, first: first!, y: mixed!.view([N, H, C]), lse: lse! }
  call('attention', tensors, { scale: 0.25 })
  linear(mixed!, w.o, delta!)
  call('add', { x: x!, y: delta! }, {})
  call('rms_norm', { x: x!, weight: norm, y: h!, rstd: rstd! }, { eps: 1e-5 })
  linear(h!, w.gate, gate!)
  linear(h!, w.up, up!)
  call('swiglu', { gate: gate!, up: up!, y: act! }, {})
  linear(act!, w.down, delta!)
  call('add', { x: x!, y: delta! }, {})
}

const CALLS = 15

async function timeCalls(device: Device, dawn: Raw | null, count: number, rounds: number): Promise<CallCosts> {
  const layers = Array.from({ length: count }, () => makeLayer(device))
  const buffers = makeBuffers(device)
  for (const tensor of Object.values(buffers)) if (tensor.dtype === 'f32') device.fill(tensor, 0.5)
  buffers.first!.write(new Uint32Array(N))
  const run = device.run.bind(device) as Call
  const steps: Step[] = []
  const prepare = device.prepare.bind(device) as unknown as (...call: Parameters<Call>) => Step
  for (const layer of layers) layerCalls((...call) => steps.push(prepare(...call)), layer, buffers)
  const norms = steps.filter(({ kernel }) => kernel === 'rms_norm') as unknown as Step<'rms_norm'>[]
  const ways: Record<string, () => void> = {
    ...(dawn && { dawn: dawn.record }),
    run: () => {
      for (const layer of layers) layerCalls(run, layer, buffers)
    },
    fresh: () => {
      const made = makeBuffers(device)
      for (const layer of layers) layerCalls(run, layer, made)
      for (const tensor of Object.values(made)) tensor.destroy()
    },
    replay: () => device.replay(steps),
    set: () => {
      for (const step of norms) step.set({ eps: 1e-5 })
    },
  }
  const times: Record<string, number[]> = Object.fromEntries(Object.keys(ways).map((way) => [way, []]))
  for (let round = 0; round < rounds + 10; round++) {
    const all = Object.entries(ways)
    // Whoever comes first pays for what the last one left behind.
    const turn = round % all.length
    for (const [way, record] of [...all.slice(turn), ...all.slice(0, turn)]) {
      const begin = performance.now()
      record()
      const us = ((performance.now() - begin) * 1000) / (way === 'set' ? norms.length : CALLS * count)
      if (round >= 10) times[way]!.push(us)
      await (way === 'dawn' ? dawn?.done() : device.done())
    }
  }
  for (const tensor of [...Object.values(buffers), ...layers.flatMap((layer) => Object.values(layer))]) tensor.destroy()
  const costs = Object.fromEntries(Object.entries(times).map(([way, all]) => [way, median(all)]))
  const beyond = dawn && median(times.replay!.map((us, round) => us - times.dawn![round]!))
  return { ...costs, ...(beyond !== null && { replayBeyondDawn: beyond }) } as unknown as CallCosts
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

interface Raw {
  readonly record: () => void
  done(): Promise<unknown>
  destroy(): void
}

/** Dawn alone: the same plan of dispatches by its own calls, pipelines and bind groups made before. */
async function openRaw(kind: 'hardware' | 'software', layers: number): Promise<Raw> {
  const found = (await requestAdapter(kind))!
  const [device, texts] = [await found.adapter.requestDevice(), await shaderTexts()]
  const params = device.createBuffer({ size: 256, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST })
  const made: [GPUComputePipeline, GPUBindGroup][] = []
  const pipelines = new Map<KernelName, [GPUComputePipeline, GPUBindGroupLayout]>()
  const pipelineOf = (name: KernelName): [GPUComputePipeline, GPUBindGroupLayout] => {
    const known = pipelines.get(name)
    if (known) return known
    const { tensors } = kernels[name]
    const visibility = GPUShaderStage.COMPUTE
    const layout = device.createBindGroupLayout({
      entries: [
        ...tensors.map(({ role }, binding) => ({
          binding,
          visibility,
          buffer: { type: role === 'input' ? ('read-only-storage' as const) : ('storage' as const) },
        })),
        { binding: tensors.length, visibility, buffer: { type: 'uniform' as const, hasDynamicOffset: true } },
      ],
    })
    const pipeline = device.createComputePipeline({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ code: texts[name] }) },
    })
    pipelines.set(name, [pipeline, layout])
    return [pipeline, layout]
  }
  // Tensors without a back end: only their names matter here.
  const nothing = new Proxy({} as Tensor, { get: () => () => nothing })
  const all = new Proxy({}, { get: () => nothing }) as Layer & Record<string, Tensor>
  for (let layer = 0; layer < layers; layer++) {
    layerCalls(
      (name) => {
        const [pipeline, layout] = pipelineOf(name)
        const { tensors } = kernels[name]
        const entries = tensors.map((_, binding) => ({
          binding,
          resource: { buffer: device.createBuffer({ size: 4096, usage: GPUBufferUsage.STORAGE }) },
        }))
        const uniform = { binding: tensors.length, resource: { buffer: params, size: 64 } }
        made.push([pipeline, device.createBindGroup({ layout, entries: [...entries, uniform] })])
      },
      all,
      all,
    )
  }
  let pass: GPUComputePassEncoder | null = null
  let encoder: GPUCommandEncoder | null = null
  return {
    record: () => {
      encoder = device.createCommandEncoder()
      pass = encoder.beginComputePass()
      for (const [pipeline, group] of made) {
        pass.setPipeline(pipeline)
        pass.setBindGroup(0, group, [0])
        pass.dispatchWorkgroups(1, 1, 1)
      }
    },
    done: () => {
      pass?.end()
      if (encoder) device.queue.submit([encoder.finish()])
      return device.queue.onSubmittedWorkDone()
    },
    destroy: () => {
      device.destroy()
      found.release()
    },
  }
}

/** Microseconds of what tensors cost. */
async function timeMemory(device: Device) {
  const us = async (work: () => void | Promise<void>, times = 1) => {
    const { ms } = await measure(work, { budgetMs: 300 })
    return (ms * 1000) / times
  }
  const small = device.tensor([1024], { data: new Float32Array(1024) })
  const large = device.tensor([2 ** 22], { data: new Float32Array(2 ** 22) })
  const data = new Float32Array(2 ** 22)
  const result = {
    tensorAndDestroy: await us(() => {
      for (let i = 0; i < 100; i++) device.tensor([1024]).destroy()
    }, 100),
    write4KiB: await us(async () => {
      for (let i = 0; i < 10; i++) small.write(data.subarray(0, 1024))
      await device.done()
    }, 10),
    write16MiB: await us(async () => {
      large.write(data)
      await device.done()
    }),
    read4KiB: await us(async () => void (await small.read())),
    read16MiB: await us(async () => void (await large.read())),
    done: await us(() => device.done()),
  }
  small.destroy()
  large.destroy()
  return result
}

/** Counts after ten and after all steps of a training-like loop, whose batches change in size. */
async function leaks(device: Device, steps: number) {
  const weight = device.tensor([64, 64], { label: 'weight', data: new Float32Array(4096).fill(0.01) })
  const step = async (i: number): Promise<void> => {
    const rows = 16 + (i % 5)
    const make = (...shape: number[]) => device.tensor(shape)
    const x = device.tensor([rows, 64], { data: new Float32Array(64 * rows).fill(1) })
    const [y, dx, dweight] = [make(rows, 64), make(rows, 64), make(64, 64)]
    device.run('linear', { x, weight, y })
    device.run('relu', { x: y })
    device.run('linear_grad_input', { dy: y, weight, dx })
    device.run('linear_grad_weight', { dy: y, x, dweight })
    await dx.read()
    for (const tensor of [x, y, dx, dweight]) tensor.destroy()
  }
  const counts = () => ({ ...device.statistics(), heapMiB: process.memoryUsage().heapUsed / 2 ** 20 })
  for (let i = 0; i < 10; i++) await step(i)
  const early = counts()
  for (let i = 10; i < steps; i++) await step(i)
  const late = counts()
  weight.destroy()
  return { early, late }
}

function print(result: {
  readonly device: string
  readonly calls: CallCosts
  readonly memory: object
  readonly leaks: { readonly early: object; readonly late: object }
}): void {
  const rows = (group: object, digits = 2) => Object.entries(group).map(([what, us]) => [what, us.toFixed(digits)])
  console.log(`${result.device}\n`)
  console.log(`${table(['a call', 'us'], rows(result.calls))}\n`)
  console.log(`${table(['memory', 'us'], rows(result.memory, 1))}\n`)
  const { early, late } = result.leaks
  const late_ = late as Record<string, number>
  const counts = Object.entries(early).map(([what, count]) => [what, count.toFixed(0), late_[what]!.toFixed(0)])
  console.log(`${table(['counts', 'after 10 steps', 'after all'], counts)}\n`)
}
