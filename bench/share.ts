// npm run bench -- share: what it saves to compute shared beginnings once, and the last layer for the asked tokens only. Both ways
// are timed in turn, and the ratio is the median over pairs of runs.
import { parseArgs } from 'node:util'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { loadLlama } from '../src/llama/forward.ts'
import { loadFeatureModel } from '../src/reward/features.ts'
import { random } from '../test/random.ts'
import { table } from './measure.ts'

interface Paired {
  /** Median milliseconds of the slow and of the fast way, and of their ratio. */
  readonly slow: number
  readonly fast: number
  readonly ratio: number
}

/** Times two ways in turn, `rounds` times each after one that is not counted. */
async function paired(slow: () => Promise<void>, fast: () => Promise<void>, rounds: number): Promise<Paired> {
  const times: number[][] = [[], [], []]
  for (let round = 0; round <= rounds; round++) {
    const [begin, between] = [performance.now(), await slow().then(() => performance.now())]
    const end = await fast().then(() => performance.now())
    if (round === 0) continue
    for (const [i, value] of [between - begin, end - between, (between - begin) / (end - between)].entries())
      times[i]!.push(value)
  }
  const [a, b, c] = times.map((values) => values.sort((x, y) => x - y)[values.length >> 1]!)
  return { slow: a!, fast: b!, ratio: c! }
}

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string', default: 'models/nano' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      prompt: { type: 'string', default: '400' },
      response: { type: 'string', default: '40' },
      responses: { type: 'string', default: '8' },
      tokens: { type: 'string', default: '512' },
      rounds: { type: 'string', default: '9' },
    },
  })
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const rounds = Number(values.rounds)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const files = await openDirectory(values.model)
  const model = await loadFeatureModel(device, files)
  const draw = random(3)
  const tokens = (count: number) => draw.integers(count, 0, model.config.vocab)
  const prompt = tokens(Number(values.prompt))
  const rows = Array.from({ length: Number(values.responses) }, () => ({
    input_ids: Uint32Array.from([...prompt, ...tokens(Number(values.response))]),
  }))
  const features = (share: boolean) => async () => void (await model.features(rows, { share }))
  const shared = await paired(features(false), features(true), rounds)
  await model.destroy()

  const llama = await loadLlama(device, files)
  const sequence = tokens(Number(values.tokens))
  const all = async () => {
    const states = await llama.hidden([sequence])
    await device.done()
    states.destroy()
  }
  const last = async () => {
    const states = await llama.states([sequence], [[sequence.length - 1]])
    await device.done()
    states.destroy()
  }
  const ends = await paired(all, last, rounds)
  llama.destroy()
  await device.destroy()
  console.log(`${device.description}; ${values.model}`)
  const line = (what: string, { slow, fast, ratio }: Paired) => [
    what,
    slow.toFixed(1),
    fast.toFixed(1),
    ratio.toFixed(2),
  ]
  console.log(
    table(
      ['what', 'ms before', 'ms', 'ratio'],
      [
        line(`${values.responses} responses of ${values.response} to one prompt of ${values.prompt}, shared`, shared),
        line(`last token of one text of ${values.tokens}, against all tokens`, ends),
      ],
    ),
  )
  console.log(JSON.stringify({ device: device.description, model: values.model, shared, ends }))
}
