// npm run bench -- model --model DIR: prefill speed of a real backbone beside the linear map's own speed on the same device,
// and peak memory. Model FLOPs: the linear maps and the causal half of attention, nothing else.
import { parseArgs } from 'node:util'
import type { Device } from '../src/device/device.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import type { LlamaConfig } from '../src/llama/config.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { random } from '../test/random.ts'
import { measure, table } from './measure.ts'

/** FLOPs of the forward pass over one sequence of T tokens. */
export function modelFlops({ hidden, layers, heads, kvHeads, headDim, intermediate }: LlamaConfig, T: number): number {
  const linear = hidden * headDim * (2 * heads + 2 * kvHeads) + 3 * hidden * intermediate
  const attention = 2 * heads * headDim * (T + 1)
  return layers * T * (2 * linear + attention)
}

/** GFLOP/s of the linear map [512, 2048] x [2048, 2048] on a device. */
async function linearRate(device: Device, dtype: 'f32' | 'bf16'): Promise<number> {
  const [N, D, O] = [512, 2048, 2048]
  const x = device.tensor([N, D], { data: random(1).normal(N * D) })
  const values = random(2).normal(O * D)
  const weight =
    dtype === 'f32'
      ? device.tensor([O, D], { data: values })
      : device.tensor([O, D], { dtype, data: new Uint16Array(values.buffer).filter((_, i) => i % 2 === 1) })
  const y = device.tensor([N, O])
  const { ms } = await measure(async () => {
    device.run(dtype === 'f32' ? 'linear' : 'linear_bf16', { x, weight, y })
    await device.done()
  })
  for (const tensor of [x, weight, y]) tensor.destroy()
  return (2 * N * D * O) / ms / 1e6
}

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string', default: 'models/nano' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      tokens: { type: 'string', default: '512' },
    },
  })
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const f32 = await linearRate(device, 'f32')
  const bf16 = await linearRate(device, 'bf16')
  const begin = performance.now()
  const llama = await loadLlama(device, await openDirectory(values.model))
  const loadMs = performance.now() - begin
  const T = Number(values.tokens)

  const tokens = random(3).integers(T, 0, llama.config.vocab)
  const { ms, spreadMs, runs } = await measure(
    async () => {
      const states = await llama.hidden([tokens])
      await device.done()
      states.destroy()
    },
    { budgetMs: 3000, minRuns: 3 },
  )
  const rate = modelFlops(llama.config, T) / ms / 1e6
  const peakMiB = process.resourceUsage().maxRSS / 1024
  llama.destroy()
  await device.destroy()
  console.log(`${device.description}; ${values.model}, one sequence of ${T} tokens, ${runs} runs`)
  console.log(
    table(
      ['what', 'value', 'unit'],
      [
        ['linear map 512 x 2048 x 2048, f32', f32.toFixed(1), 'GFLOP/s'],
        ['the same, bf16 weights', bf16.toFixed(1), 'GFLOP/s'],
        ['load', loadMs.toFixed(0), 'ms'],
        ['forward', `${ms.toFixed(1)} +- ${spreadMs.toFixed(1)}`, 'ms'],
        ['tokens', ((T / ms) * 1000).toFixed(0), '1/s'],
        ['model', rate.toFixed(1), 'GFLOP/s'],
        ['share of the f32 linear map', (100 * (rate / f32)).toFixed(0), '%'],
        ['peak memory of the process', peakMiB.toFixed(0), 'MiB'],
      ],
    ),
  )
  console.log(
    JSON.stringify({
      device: device.description,
      model: values.model,
      tokens: T,
      loadMs,
      ms,
      spreadMs,
      gflops: rate,
      linear: f32,
      linearBf16: bf16,
      share: rate / f32,
      peakMiB,
    }),
  )
}
