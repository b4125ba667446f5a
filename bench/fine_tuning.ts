// npm run bench -- fine_tuning --model DIR --out DIR [--vader DIR] [--hh DIR]: what adapting the backbone by LoRA is worth, against
// heads on its frozen features, which are also what it begins with. Both see the same training rows and are measured on the same held-out ones.
import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { runPairs } from './fine_tuning/pairs.ts'
import { runRatings } from './fine_tuning/ratings.ts'
import type { Run } from './fine_tuning/run.ts'

const HELP = `usage: npm run bench -- fine_tuning --model DIR --out DIR [options]

  --vader DIR        quantile heads on the raw ratings of VADER's sentences: movie_reviews.jsonl.gz, amazon_reviews.jsonl.gz,
                     nyt_editorials.jsonl.gz in DIR
  --hh DIR           a reward model on the pairs of HH-RLHF: helpful-base, helpful-rejection-sampled and harmless-base.test.jsonl.gz
                     in DIR
  --out DIR          folder for everything that is made; the same command goes on with what is there
  --device, --threads  where (wasm)
  --rank N --alpha N of all seven projections (8, 16)
  --lr X             peak of a cosine after warming up for a twentieth of the steps (2e-4)
  --batch N          rows or pairs of a step (8)
  --rows N           training rows of ratings (2000)
  --held N           held-out rows of ratings (800)
  --pairs N          training pairs (600)
  --held-pairs N     held-out pairs (300)
  --epochs N         of the adapters (1)
  --max-length N     pairs with a side of more tokens are left out (160)
  --save-steps N     steps between two checkpoints of an adapter (25)
  --seed N           of split, order and adapter (0)
  --results FILE     appends a line for each part

What is held out is decided by a hash of the sentence, or of the first message of a dialogue: a quarter.`

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      vader: { type: 'string' },
      hh: { type: 'string' },
      out: { type: 'string' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      rank: { type: 'string', default: '8' },
      alpha: { type: 'string', default: '16' },
      lr: { type: 'string', default: '2e-4' },
      batch: { type: 'string', default: '8' },
      rows: { type: 'string', default: '2000' },
      held: { type: 'string', default: '800' },
      pairs: { type: 'string', default: '600' },
      'held-pairs': { type: 'string', default: '300' },
      epochs: { type: 'string', default: '1' },
      'max-length': { type: 'string', default: '160' },
      'save-steps': { type: 'string', default: '25' },
      seed: { type: 'string', default: '0' },
      results: { type: 'string' },
      help: { type: 'boolean' },
    },
  })
  const { model, out, vader, hh } = values
  if (values.help || !model || !out || !(vader || hh)) {
    console.log(HELP)
    return
  }
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const seed = Number(values.seed)
  const run: Run = {
    device,
    files: await openDirectory(model),
    seed,
    adapter: {
      ...{ rank: Number(values.rank), alpha: Number(values.alpha), lr: Number(values.lr), warmup: 0.05 },
      ...{ batch: Number(values.batch), epochs: Number(values.epochs), saveSteps: Number(values['save-steps']), seed },
    },
    async folder(name) {
      const path = join(out, name)
      await mkdir(path, { recursive: true })
      return path
    },
  }
  const sizes = { rows: Number(values.rows), held: Number(values.held) }
  const pairSizes = {
    pairs: Number(values.pairs),
    held: Number(values['held-pairs']),
    maxLength: Number(values['max-length']),
  }
  const parts = [
    ...(vader ? [{ name: 'ratings', work: () => runRatings(run, vader, sizes) }] : []),
    ...(hh ? [{ name: 'pairs', work: () => runPairs(run, hh, pairSizes) }] : []),
  ]
  const results: object[] = []
  for (const { name, work } of parts) {
    const before = process.cpuUsage()
    const found = await work()
    const { user, system } = process.cpuUsage(before)
    const shared = {
      model: basename(model),
      device: device.description,
      rank: run.adapter.rank,
      lr: run.adapter.lr,
      batch: run.adapter.batch,
    }
    const result = { part: name, ...shared, seed, cpuSeconds: Math.round((user + system) / 1e6), ...found }
    await writeFile(join(out, `${name}.json`), `${JSON.stringify(result, null, 2)}\n`)
    const date = new Date().toISOString().slice(0, 10)
    if (values.results) await appendFile(values.results, `${JSON.stringify({ date, ...result })}\n`)
    results.push(result)
  }
  await device.destroy()
  console.log(JSON.stringify(results))
}
