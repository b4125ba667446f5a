// npm run bench -- rloo: what a step of RLOO takes, part by part, beside what the rates of forward and backward predict; and memory
// over many steps.
import { parseArgs } from 'node:util'
import type { Statistics } from '../src/device/backend.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { trainRloo } from '../src/train/rloo/rloo.ts'
import { BANDIT_SETTINGS, banditModel, banditPrompts, banditReward } from '../test/bandit.ts'
import { table } from './measure.ts'
import { measureParts } from './rloo/parts.ts'

const HELP = `usage: npm run bench -- rloo [options]

  --memory          1,000 steps of a bandit: tensors, bytes, GPU buffers, memory of the process
  --device LIST     of --memory and of the parts (wasm)
  --threads N       of the CPU
  --steps N         steps of --memory (1000), or that are measured beside one that is not (6)
  --model DIR       policy (models/nano)
  --adapter DIR     its adapter, and the reference (models/nano-sft); "none": none
  --reward DIR      reward model (models/nano)
  --k N --batch N   completions of a prompt, of a step (4, 64)
  --tokens N        longest completion (32)
  --clock CLOCK     wall, or processor with --threads 1 on a busy machine (wall)`

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      memory: { type: 'boolean', default: false },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      steps: { type: 'string' },
      model: { type: 'string', default: 'models/nano' },
      adapter: { type: 'string', default: 'models/nano-sft' },
      reward: { type: 'string', default: 'models/nano' },
      k: { type: 'string', default: '4' },
      batch: { type: 'string', default: '64' },
      tokens: { type: 'string', default: '32' },
      clock: { type: 'string', default: 'wall' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    console.log(HELP)
    return
  }
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const results: object[] = []
  for (const kind of values.device.split(',') as DeviceKind[]) {
    if (!DEVICE_KINDS.includes(kind))
      throw new Error(`bench: --device must be of ${DEVICE_KINDS.join(', ')}, got ${kind}`)
    const device = await openDevice(kind, { threads })
    try {
      if (values.memory) results.push(await measureMemory(device, Number(values.steps ?? 1000)))
      else {
        const { model, adapter, reward } = values
        const sizes = { k: Number(values.k), batch: Number(values.batch), tokens: Number(values.tokens) }
        if (values.clock !== 'wall' && values.clock !== 'processor')
          throw new Error(`bench: --clock must be wall or processor, got ${values.clock}`)
        const { clock } = values
        const steps = Number(values.steps ?? 6)
        results.push(
          await measureParts(device, {
            model,
            adapter: adapter === 'none' ? null : adapter,
            reward,
            steps,
            clock,
            ...sizes,
          }),
        )
      }
    } finally {
      await device.destroy()
    }
  }
  console.log(JSON.stringify(results))
}

interface Sample extends Pick<Statistics, 'tensors' | 'bytes' | 'keptBytes' | 'buffers' | 'bindGroups'> {
  readonly step: number
  readonly heap: number
  readonly process: number
}

/** Trains on a bandit and looks at memory after steps 10, 20, 50, 100, 200 ... */
async function measureMemory(device: Awaited<ReturnType<typeof openDevice>>, steps: number): Promise<object> {
  const samples: Sample[] = []
  const looks = new Set([
    10,
    20,
    50,
    ...Array.from({ length: Math.floor(steps / 100) }, (_, i) => 100 * (i + 1)),
    steps,
  ])
  const begin = performance.now()
  await trainRloo(device, await banditModel(), banditPrompts(), [banditReward(0, 1)], {
    ...BANDIT_SETTINGS,
    maxSteps: steps,
    onEntry(entry) {
      const { step } = entry as { readonly step: number }
      if (!looks.has(step)) return
      const { tensors, bytes, keptBytes, buffers, bindGroups } = device.statistics()
      globalThis.gc?.()
      const { heapUsed: heap, rss } = process.memoryUsage()
      samples.push({ step, tensors, bytes, keptBytes, buffers, bindGroups, heap, process: rss })
    },
  })
  const seconds = (performance.now() - begin) / 1000
  const MB = (value: number) => (value / 1e6).toFixed(2)
  console.log(`${device.description}: ${steps} steps in ${seconds.toFixed(1)} s`)
  console.log(
    table(
      ['step', 'tensors', 'MB', 'kept MB', 'buffers', 'bind groups', 'heap MB', 'process MB'],
      samples.map((own) => [
        ...[own.step, own.tensors].map(String),
        ...[own.bytes, own.keptBytes].map(MB),
        ...[own.buffers, own.bindGroups].map(String),
        ...[own.heap, own.process].map(MB),
      ]),
    ),
  )
  return { device: device.description, steps, seconds, samples }
}
