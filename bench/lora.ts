// npm run bench -- lora --model DIR: one step of LoRA training on a real backbone: its parts, its kernels, its memory, beside the
// linear map's own speed on the same device in the same run; and the loss block alone at a vocabulary of 128,256.
//
// Model FLOPs of a step are those that no implementation can leave out: forward (linear maps, the causal half of attention, output
// layer for the learned tokens) and back through the same without gradients of frozen weights: as many again for the linear maps and
// the output layer, twice as many for attention. What the branches of LoRA add, and what checkpointing computes again, is counted
// apart: the first never, the second with --checkpointing only.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import type { CallTimes } from '../src/device/backend.ts'
import type { Device } from '../src/device/device.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { kernels } from '../src/generated/kernels.ts'
import { newAdapterConfig } from '../src/llama/adapter_config.ts'
import type { LlamaConfig } from '../src/llama/config.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { openOutputLayer } from '../src/llama/output_layer.ts'
import { openPass } from '../src/llama/training_pass.ts'
import { shapesOf } from '../src/llama/weights.ts'
import { openModelDirectory } from '../src/reward/directory.ts'
import { AdapterParameters } from '../src/train/adapter_parameters.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { Optimiser } from '../src/train/optimiser.ts'
import { random } from '../test/random.ts'
import { lossBlock } from './lora/loss_block.ts'
import { startPeft } from './lora/peft.ts'
import { table } from './measure.ts'
import { modelFlops } from './model.ts'

const HELP = `usage: npm run bench -- lora --model DIR [options]

  --device KIND      wasm (default), webgpu, webgpu:software
  --threads N        of the CPU
  --rows N           sequences of a step (4)
  --tokens N         tokens of a sequence (256)
  --rank N           of all seven projections (32)
  --dropout SHARE    on the branches (0)
  --checkpointing    compute blocks again instead of keeping them
  --rounds N         steps that are measured, after one that is not (5)
  --steps N          steps whose tensors are counted (0)
  --profile          one more step with the time of every kernel
  --peft PYTHON      the same step by PyTorch and PEFT in turn with ours; a Python that has them
  --loss             the loss block alone: 1,020 tokens, a vocabulary of 128,256, states of 576`

interface Flops {
  /** Of a forward pass without and of the output layer. */
  readonly forward: number
  readonly output: number
  readonly backward: number
  readonly recomputed: number
  readonly lora: number
}

/** What a step of B sequences of T tokens comes to, of which all but the first are learned. */
export function stepFlops(config: LlamaConfig, B: number, T: number, rank: number, checkpointing: boolean): Flops {
  const { hidden: D, layers, heads, headDim, vocab } = config
  const attention = B * layers * T * 2 * heads * headDim * (T + 1)
  const all = B * modelFlops(config, T)
  const shapes = Object.values(shapesOf(config)).filter(({ length }) => length === 2) as [number, number][]
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
  const each = 2 * B * T * layers
  const [O, I] = shapesOf(config).down_proj as [number, number]
  // Forward: x A^T and its product with B. Back: x A^T again, dB, dy B, dA and dx.
  const branch = each * rank * sum(shapes.flat())
  return {
    forward: all,
    output: 2 * 2 * B * (T - 1) * D * vocab,
    backward: all + attention,
    // The last linear map of a block is not needed again.
    recomputed: checkpointing ? all - each * O * I : 0,
    lora:
      3 * branch +
      each * rank * sum(shapes.map((own) => own[1])) +
      (checkpointing ? branch - each * rank * (O + I) : 0),
  }
}

/** One of the bounds: 512 x 2048 x 2048 with bf16 weights, in milliseconds. */
function linearMap(device: Device) {
  const [N, D, O] = [512, 2048, 2048]
  const x = device.tensor([N, D], { data: random(1).normal(N * D) })
  const bits = new Uint16Array(random(2).normal(O * D).buffer).filter((_, i) => i % 2 === 1)
  const weight = device.tensor([O, D], { dtype: 'bf16', data: bits })
  const y = device.tensor([N, O])
  return {
    /** GFLOP/s of one run. */
    async rate(): Promise<number> {
      const begin = performance.now()
      for (let i = 0; i < 4; i++) device.run('linear_bf16', { x, weight, y })
      await device.done()
      return (4 * 2 * N * D * O) / (performance.now() - begin) / 1e6
    },
    destroy() {
      for (const tensor of [x, weight, y]) tensor.destroy()
    },
  }
}

/** The kernels of a step by their names: calls, time and its share, arithmetic. */
function kernelTable(calls: readonly CallTimes[]): string {
  const sums = new Map<string, { count: number; ms: number; flops: number }>()
  for (const { kernel, sizes, begin, end } of calls) {
    const own = sums.get(kernel) ?? { count: 0, ms: 0, flops: 0 }
    own.count++
    own.ms += end - begin
    own.flops += kernels[kernel as keyof typeof kernels].flops(sizes)
    sums.set(kernel, own)
  }
  const whole = [...sums.values()].reduce((sum, { ms }) => sum + ms, 0)
  const rows = [...sums].sort(([, a], [, b]) => b.ms - a.ms)
  return table(
    ['kernel', 'calls', 'ms', 'share', 'GFLOP/s'],
    rows.map(([name, { count, ms, flops }]) => [
      name,
      `${count}`,
      ms.toFixed(1),
      `${((100 * ms) / whole).toFixed(1)} %`,
      (flops / ms / 1e6).toFixed(1),
    ]),
  )
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      rows: { type: 'string', default: '4' },
      tokens: { type: 'string', default: '256' },
      rank: { type: 'string', default: '32' },
      dropout: { type: 'string', default: '0' },
      checkpointing: { type: 'boolean', default: false },
      rounds: { type: 'string', default: '5' },
      steps: { type: 'string', default: '0' },
      profile: { type: 'boolean', default: false },
      peft: { type: 'string' },
      loss: { type: 'boolean', default: false },
      help: { type: 'boolean' },
    },
  })
  if (values.help || (!values.model && !values.loss)) {
    console.log(HELP)
    return
  }
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads, profile: values.profile })
  if (values.loss) await lossBlock(device)
  if (values.model) {
    const [B, T, rank, rounds, steps] = [values.rows, values.tokens, values.rank, values.rounds, values.steps].map(
      Number,
    )
    const options = {
      checkpointing: values.checkpointing,
      profile: values.profile,
      dropout: Number(values.dropout),
      peft: values.peft,
      threads,
    }
    await step(device, values.model, { B: B!, T: T!, rank: rank!, rounds: rounds!, steps: steps!, ...options })
  }
  await device.destroy()
}

interface StepOptions {
  readonly B: number
  readonly T: number
  readonly rank: number
  readonly rounds: number
  readonly steps: number
  readonly dropout: number
  readonly checkpointing: boolean
  readonly profile: boolean
  readonly peft: string | undefined
  readonly threads: number | undefined
}

const PHASES = ['forward', 'output', 'backward', 'optimiser'] as const

async function step(device: Device, path: string, options: StepOptions): Promise<void> {
  const { B, T, rank, checkpointing, dropout } = options
  const files = await openDirectory(path)
  const directory = await openModelDirectory(files)
  const model = await openBackbone(device, directory)
  const { config } = model
  const output = await openOutputLayer(
    device,
    config,
    directory.tensors.get('lm_head.weight') ?? model.tensors.embedding,
  )
  const weights = device.statistics().bytes
  const start = startAdapter(
    newAdapterConfig({ task: 'CAUSAL_LM', rank, alpha: 2 * rank, targets: 'all-linear', dropout }),
    config,
    0,
  )
  const adapter = new AdapterParameters(device, start, config)
  const optimiser = new Optimiser(device, adapter.parameters, { weightDecay: 0, maxGradNorm: 1 })
  const state = device.statistics().bytes
  const draw = random(3)
  const sequences = Array.from({ length: B }, () => Uint32Array.from(draw.integers(T, 0, config.vocab)))
  let peak = 0
  let updates = 0
  const once = async (): Promise<number[]> => {
    const times = [performance.now()]
    adapter.clear()
    const masks = dropout > 0 ? { dropout: { share: dropout, keys: sequences.map((_, i) => i + updates) } } : {}
    const pass = await openPass(device, model, adapter.layers, sequences, { checkpointing, ...masks })
    const places = sequences.flatMap((tokens, s) =>
      Array.from({ length: T - 1 }, (_, t) => ({ row: pass.rowOf(s, t), wanted: tokens[t + 1]! })),
    )
    const x = pass.states(Uint32Array.from(places, ({ row }) => row))
    await device.done()
    times.push(performance.now())
    const measured = await output.measure(
      x,
      Uint32Array.from(places, ({ wanted }) => wanted),
    )
    const dx = device.tensor(x.shape, { label: 'gradient of the states' })
    measured.backward(new Float32Array(places.length).fill(1 / places.length), dx)
    peak = Math.max(peak, device.statistics().bytes)
    await device.done()
    times.push(performance.now())
    await pass.backward(dx, adapter.grads)
    peak = Math.max(peak, device.statistics().bytes)
    await device.done()
    times.push(performance.now())
    for (const thing of [pass, measured, dx]) thing.destroy()
    optimiser.update(1e-4, updates++)
    await optimiser.norm()
    times.push(performance.now())
    return times
  }

  await once()
  const threads = options.threads ?? availableParallelism()
  const peft = options.peft && (await startPeft(options.peft, [path, B, T, rank, threads, Number(checkpointing)]))
  if (peft) await peft.step()
  const ratios: number[][] = [[], [], []]
  const bound = linearMap(device)
  await bound.rate()
  const flops = stepFlops(config, B, T, rank, checkpointing)
  const counted = flops.forward + flops.output + flops.backward + flops.recomputed
  const [phases, rates, shares, wholes, cpu]: [number[][], number[], number[], number[], number[]] = [
    [],
    [],
    [],
    [],
    [],
  ]
  for (let round = 0; round < options.rounds; round++) {
    const before = await bound.rate()
    const used = process.cpuUsage()
    const times = await once()
    const { user, system } = process.cpuUsage(used)
    const rate = (before + (await bound.rate())) / 2
    const ms = times.at(-1)! - times[0]!
    phases.push(PHASES.map((_, i) => times[i + 1]! - times[i]!))
    rates.push(rate)
    shares.push(counted / ms / 1e6 / rate)
    wholes.push(ms)
    cpu.push((user + system) / 1000)
    if (!peft) continue
    const theirs = await peft.step()
    for (const [i, value] of [theirs.ms, theirs.ms / ms, theirs.cpuMs / cpu.at(-1)!].entries()) ratios[i]!.push(value)
  }
  if (peft) {
    peft.end()
    const [ms, wall, processor] = ratios.map((values) => median(values))
    console.log(
      `PEFT (${peft.description}, f32, sdpa): ${ms!.toFixed(0)} ms a step; its time / ours: ${wall!.toFixed(3)} by the clock, ` +
        `${processor!.toFixed(3)} of processor time`,
    )
  }
  if (options.profile) {
    const calls: CallTimes[] = []
    device.profile({ call: (times) => calls.push(times) })
    const begin = performance.now()
    await once()
    const ms = performance.now() - begin
    device.profile(null)
    const busy = calls.reduce((sum, { begin, end }) => sum + end - begin, 0)
    console.log(`${kernelTable(calls)}\nkernels ${busy.toFixed(0)} of ${ms.toFixed(0)} ms`)
  }
  bound.destroy()
  const before = device.statistics()
  for (let i = 0; i < options.steps; i++) await once()
  const after = device.statistics()
  const rss = process.resourceUsage().maxRSS * 1024
  const ms = median(wholes)
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0)
  console.log(`${device.description}; ${path}, ${B} x ${T} tokens, rank ${rank}, ${options.rounds} rounds`)
  console.log(
    table(
      ['what', 'value', 'unit'],
      [
        ['linear map 512 x 2048 x 2048, bf16', median(rates).toFixed(1), 'GFLOP/s'],
        ...PHASES.map((name, i) => [name, median(phases.map((own) => own[i]!)).toFixed(0), 'ms']),
        ['step', ms.toFixed(0), 'ms'],
        ['processor time of a step', median(cpu).toFixed(0), 'ms'],
        ['model', (counted / 1e9).toFixed(1), 'GFLOP'],
        ['  of which computed again', (flops.recomputed / 1e9).toFixed(1), 'GFLOP'],
        ['branches, not counted', (flops.lora / 1e9).toFixed(1), 'GFLOP'],
        ['rate', (counted / ms / 1e6).toFixed(1), 'GFLOP/s'],
        ['share of the linear map', (100 * median(shares)).toFixed(1), '%'],
        ['with the branches', (100 * median(shares) * (1 + flops.lora / counted)).toFixed(1), '%'],
        ['weights on the device', mib(weights), 'MiB'],
        ['adapter, gradients, moments', mib(state - weights), 'MiB'],
        ['most on the device', mib(peak), 'MiB'],
        ['process', mib(rss), 'MiB'],
      ],
    ),
  )
  if (options.steps > 0)
    console.log(
      `tensors before and after ${options.steps} steps: ${before.tensors}, ${after.tensors}; bytes ${before.bytes}, ${after.bytes}; kept ${before.keptBytes}, ${after.keptBytes}`,
    )
  console.log(
    JSON.stringify({
      ...{ device: device.description, model: path, rows: B, tokens: T, rank, dropout, checkpointing, ms },
      ...{ phases: Object.fromEntries(PHASES.map((name, i) => [name, median(phases.map((own) => own[i]!))])) },
      ...{ cpuMs: median(cpu), linear: median(rates), flops, share: median(shares), weights, state, peak, rss },
    }),
  )
  optimiser.destroy()
  adapter.destroy()
  output.destroy()
  model.destroy()
  await directory.close()
}
