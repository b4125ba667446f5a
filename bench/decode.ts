// npm run bench -- decode --model DIR: speed of decoding beside the bound that reading the weights once a token sets.
//
// The bound is measured in the same rounds on the same threads: the kernel `read` sums a tensor of as many bytes as a step's weights
// take. The other bound is that of arithmetic, by the kernel `fma`: 16 rows are more work than reading. On a machine that others use, processor time says more than the clock: both are shown, medians of rounds and best ones.
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { basename } from 'node:path'
import { parseArgs } from 'node:util'
import type { CallTimes } from '../src/device/backend.ts'
import type { Device } from '../src/device/device.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { openDirectory } from '../src/files/disk.ts'
import { parseJsonObject } from '../src/files/json.ts'
import { openModelTensors } from '../src/files/safetensors.ts'
import { readText } from '../src/files/source.ts'
import { makeCache } from '../src/generate/cache.ts'
import { chooser } from '../src/generate/chooser.ts'
import { GENERATION_DEFAULTS } from '../src/generate/continuation.ts'
import { openDecodeStep } from '../src/generate/decode_step.ts'
import { type DecoderModel, openDecoder } from '../src/generate/decoding.ts'
import type { LlamaConfig } from '../src/llama/config.ts'
import { openBackbone, prefill } from '../src/llama/forward.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { random } from '../test/random.ts'
import { table } from './measure.ts'

const ROW_BYTES = 4 * 4096
/** Samples that go on together. */
const BATCHES = [1, 4, 16]
const FMA = { N: 2 ** 16, rounds: 1024 }
const GREEDY = { ...GENERATION_DEFAULTS, temperature: 0 }

interface Times {
  readonly ms: number[]
  /** Of all threads. */
  readonly cpuMs: number[]
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!
const best = (values: readonly number[]): number => Math.min(...values)

const cpuNow = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

async function timed(times: Times, work: () => Promise<unknown>): Promise<void> {
  const [begin, cpu] = [performance.now(), cpuNow()]
  await work()
  times.ms.push(performance.now() - begin)
  times.cpuMs.push(cpuNow() - cpu)
}

/**
 * Throws unless 16 continuations are those of the same prompts alone, and the logits behind the last token are those of the whole
 * sequence, computed at once, within the rounding of the two orders of attention's sums.
 */
async function check(parts: DecoderModel, prompts: readonly Uint32Array[]): Promise<void> {
  const rows = prompts.map((tokens, key) => ({ tokens, samples: 1, key }))
  let shown = new Float32Array()
  const greedy = chooser(GREEDY, rows)
  const options = { maxNewTokens: 12 }
  const together = await openDecoder(parts, { slots: 16 }).run(rows, greedy, options)
  const [alone] = await openDecoder(parts, { slots: 1 }).run(
    rows.slice(0, 1),
    (choice) => {
      shown = choice.logits.slice()
      return greedy(choice)
    },
    options,
  )
  if (alone!.tokens.join() !== together[0]!.tokens.join())
    throw new Error(`decode: alone ${alone!.tokens.join()}, among 16 ${together[0]!.tokens.join()}`)
  const whole = Uint32Array.from([...prompts[0]!, ...alone!.tokens.subarray(0, -1)])
  const { device, model, output } = parts
  const cache = makeCache(device, model.config, whole.length, 'f32')
  const states = await prefill(device, model, [whole], { layers: cache, rows: whole.map((_, row) => row) }, [])
  const logits = await output.logits(states)
  for (const tensor of [states, ...cache]) tensor.destroy()
  const spread = Math.sqrt(logits.reduce((sum, value) => sum + value * value, 0) / logits.length)
  const apart = logits.reduce((most, value, i) => Math.max(most, Math.abs(value - shown[i]!)), 0)
  if (!(apart <= 1e-3 * spread)) throw new Error(`decode: logits are ${apart} apart, their spread is ${spread}`)
}

/** Times of one step by part: calls of the linear maps, of the output layer, of attention, of the rest. */
function partOf({ kernel, sizes }: CallTimes, vocab: number): string {
  if (kernel.startsWith('linear')) return sizes.O === vocab ? 'output layer' : 'linear maps'
  return kernel.startsWith('attention') ? 'attention' : 'other kernels'
}

/** Weights of the linear maps of a layer. */
const linearSizes = ({ hidden, heads, kvHeads, headDim, intermediate }: LlamaConfig): number =>
  hidden * headDim * (2 * heads + 2 * kvHeads) + 3 * hidden * intermediate

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string', default: 'models/nano' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      context: { type: 'string', default: '128' },
      rounds: { type: 'string', default: '12' },
      save: { type: 'string' },
    },
  })
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const [context, rounds] = [Number(values.context), Number(values.rounds)]
  const device: Device = await openDevice(values.device as DeviceKind, { threads, profile: true })
  const files = await openDirectory(values.model)
  const json = parseJsonObject((await readText(files, 'config.json'))!, 'config.json')
  const tensors = await openModelTensors(files)
  const model = await openBackbone(device, { name: files.name, config: json, tensors })
  const { config } = model
  const info = outputInfo(tensors, config)
  if (!info) throw new Error(`bench: ${values.model} has no output layer; give the folder of a causal model`)
  const output = await openOutputLayer(device, config, info)
  const parts: DecoderModel = { device, model, output, adapter: [] }

  const draw = random(4)
  const prompts = Array.from({ length: 16 }, (_, i) => draw.integers(20 + i, 0, config.vocab))
  await check(parts, prompts)

  const weightBytes = model.tensors.layerBytes + info.end - info.begin
  const rows = Math.ceil(weightBytes / ROW_BYTES)
  const large = device.tensor([rows, 4096], { label: 'as many bytes as the weights' })
  device.fill(large, 1)
  const sums = device.tensor([rows])
  const chains = device.tensor([FMA.N], { data: new Float32Array(FMA.N) })
  const most = Math.max(...BATCHES)
  const cache = makeCache(device, config, most * (context + 1), 'f32')
  for (const tensor of cache) device.fill(tensor, 0.01)
  const step = openDecodeStep(device, model, [], cache, output.table(model.tensors.embedding), most, context + 1)
  const stepRows = Array.from({ length: most }, (_, n) => {
    const own = n * (context + 1)
    return { token: draw.integers(1, 0, config.vocab)[0]!, position: context, prefix: own, ahead: 0, own }
  })
  const greedy = chooser(GREEDY, [{ tokens: prompts[0]!, samples: most, key: 0 }])
  const none = (): Times => ({ ms: [], cpuMs: [] })
  const [read, fma] = [none(), none()]
  const steps = new Map(BATCHES.map((batch) => [batch, none()]))
  const sampling = new Map(BATCHES.map((batch) => [batch, none()]))
  const kernels = new Map(BATCHES.map((batch) => [batch, new Map<string, number[]>()]))

  const one = async (batch: number): Promise<Float32Array> =>
    output.logits((await step.run(stepRows.slice(0, batch))) as Tensor)
  for (let round = 0; round <= rounds; round++) {
    const warm = round > 0
    await timed(warm ? read : none(), async () => {
      device.run('read', { x: large, sums })
      await device.done()
    })
    await timed(warm ? fma : none(), async () => {
      device.run('fma', { x: chains }, { rounds: FMA.rounds })
      await device.done()
    })
    for (const batch of BATCHES) {
      let logits = new Float32Array()
      await timed(warm ? steps.get(batch)! : none(), async () => {
        logits = (await one(batch)) as Float32Array<ArrayBuffer>
      })
      await timed(warm ? sampling.get(batch)! : none(), async () => {
        for (let n = 0; n < batch; n++) {
          const own = logits.subarray(n * config.vocab, (n + 1) * config.vocab)
          greedy({ prompt: 0, sample: n, tokens: [], logits: own })
        }
      })
      const calls = new Map<string, number>()
      device.profile({
        call: (times) => {
          const part = partOf(times, config.vocab)
          calls.set(part, (calls.get(part) ?? 0) + times.end - times.begin)
        },
      })
      await one(batch)
      await device.done()
      device.profile(null)
      const known = kernels.get(batch)!
      if (warm) for (const [part, ms] of calls) known.set(part, [...(known.get(part) ?? []), ms])
    }
  }

  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  // Multiplications and additions of the weights' matrices, by how many of them the fma kernel does in a millisecond.
  const weights = config.layers * linearSizes(config) + config.vocab * config.hidden
  const flopsPerCpuMs = (2 * FMA.N * FMA.rounds) / best(fma.cpuMs)
  const results = BATCHES.map((batch) => {
    const { ms, cpuMs } = steps.get(batch)!
    return {
      batch,
      ms: median(ms),
      bestMs: best(ms),
      cpuMs: median(cpuMs),
      bestCpuMs: best(cpuMs),
      tokensPerSecond: (1000 * batch) / median(ms),
      tokensPerCpuSecond: (1000 * batch) / median(cpuMs),
      /** Of the time of reading: in the same round, and by the least processor time of each. */
      boundShare: median(ms.map((value, round) => read.ms[round]! / value)),
      cpuBoundShare: best(read.cpuMs) / best(cpuMs),
      /** Share of processor time that its arithmetic takes at least. */
      arithmeticShare: (2 * batch * weights) / flopsPerCpuMs / best(cpuMs),
      samplingCpuMs: median(sampling.get(batch)!.cpuMs),
      bestPartsMs: Object.fromEntries([...kernels.get(batch)!].map(([part, times]) => [part, best(times)])),
    }
  })
  const reading = {
    bytes: rows * ROW_BYTES,
    ms: median(read.ms),
    bestMs: best(read.ms),
    cpuMs: median(read.cpuMs),
    bestCpuMs: best(read.cpuMs),
    gflopsPerCpuSecond: flopsPerCpuMs / 1e6,
  }
  console.log(
    `${machine}; ${device.description}; ${values.model}, ${context} tokens before, ${rounds} rounds\n` +
      `reading ${(reading.bytes / 1e6).toFixed(0)} MB: ${reading.ms.toFixed(1)} ms, best ${reading.bestMs.toFixed(1)}, processor time ${reading.cpuMs.toFixed(1)}, best ${reading.bestCpuMs.toFixed(1)}`,
  )
  const first = results[0]!
  console.log(
    table(
      [
        'samples',
        'ms',
        'best',
        'cpu ms',
        'best',
        'tokens/s',
        'of 1, cpu',
        'of bound',
        'of bound, cpu',
        'arithmetic, cpu',
        'sampling cpu ms',
        'parts, best ms',
      ],
      results.map((row) => [
        `${row.batch}`,
        row.ms.toFixed(1),
        row.bestMs.toFixed(1),
        row.cpuMs.toFixed(1),
        row.bestCpuMs.toFixed(1),
        row.tokensPerSecond.toFixed(1),
        `${(row.tokensPerCpuSecond / first.tokensPerCpuSecond).toFixed(2)} x`,
        `${(100 * row.boundShare).toFixed(0)} %`,
        `${(100 * row.cpuBoundShare).toFixed(0)} %`,
        `${(100 * row.arithmeticShare).toFixed(0)} %`,
        row.samplingCpuMs.toFixed(2),
        Object.entries(row.bestPartsMs)
          .map(([part, ms]) => `${part} ${ms.toFixed(1)}`)
          .join(', '),
      ]),
    ),
  )
  const result = {
    machine,
    device: device.description,
    model: basename(values.model),
    context,
    rounds,
    reading,
    results,
  }
  if (values.save) {
    mkdirSync('bench/results', { recursive: true })
    writeFileSync(
      `bench/results/${values.save}.jsonl`,
      `${JSON.stringify({ date: new Date().toISOString().slice(0, 10), ...result })}\n`,
    )
  }
  step.destroy()
  for (const tensor of [large, sums, chains, ...cache]) tensor.destroy()
  output.destroy()
  model.destroy()
  await device.destroy()
  console.log(JSON.stringify(result))
}
