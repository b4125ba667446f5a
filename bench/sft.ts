// npm run bench -- sft --model DIR --data FILES --out DIR: real supervised fine-tuning on HH-RLHF's chosen answers, with the held-out
// loss before and after. bench/sft/peft_reference.py then trains with PyTorch and PEFT on the same rows in the same order from the
// same adapter, and compares the curves.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { fraction } from '../models/nano/rows.ts'
import { splitDialogue } from '../src/data/fields.ts'
import { randomBits } from '../src/data/random.ts'
import type { Device } from '../src/device/device.ts'
import { DEVICE_KINDS, type DeviceKind, openDevice } from '../src/device/open.ts'
import { directoryTree, openDirectory, openFile } from '../src/files/disk.ts'
import { type FileRecord, readRecords } from '../src/files/records.ts'
import { newAdapterConfig } from '../src/llama/adapter_config.ts'
import { type Adapter, encodeAdapter } from '../src/llama/adapter_files.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { openOutputLayer } from '../src/llama/output_layer.ts'
import { type ModelDirectory, openModelDirectory } from '../src/reward/directory.ts'
import { loadTokenizer } from '../src/text/tokenizer.ts'
import { AdapterParameters } from '../src/train/adapter_parameters.ts'
import { startAdapter } from '../src/train/adapter_start.ts'
import { trainSft } from '../src/train/sft.ts'
import { encodeSftRow, type SftRow } from '../src/train/sft_rows.ts'
import { evaluateRows, type SftEntry } from '../src/train/sft_task.ts'

const HELP = `usage: npm run bench -- sft --model DIR --data FILE[,FILE] --out DIR [options]

  --device, --threads      where (wasm)
  --rank N --alpha N       of all seven projections (8, 16)
  --lr X                   peak of a cosine without warm-up (3e-4)
  --batch N --steps N      rows of a step, steps (2, 200)
  --epochs N               at most; ends before --steps where there are fewer rows (1)
  --max-length N           rows of more tokens are left out (256)
  --held N                 held-out rows: dialogues whose first message hashes below 0.2, as models/nano holds out (48)`

/** Chosen dialogues, by their first message: held out, or for training. */
async function* chosen(files: readonly string[]): AsyncGenerator<{ held: boolean; row: FileRecord }> {
  for (const file of files) {
    const source = await openFile(file)
    try {
      for await (const row of readRecords(source)) {
        const messages = splitDialogue(String(row.value.chosen))
        if (messages?.at(-1)?.role !== 'assistant') continue
        yield { held: fraction(messages[0]!.content) < 0.2, row }
      }
    } finally {
      await source.close()
    }
  }
}

interface Rows {
  readonly training: SftRow[]
  readonly held: SftRow[]
}

async function readRows({ files, manifest, config, name }: ModelDirectory, data: string, most: number): Promise<Rows> {
  const tokenizer = await loadTokenizer(files)
  const vocab = Number(config.vocab_size)
  const rules = { name, tokenizer, bos: manifest.bos, vocab, maxLength: most, loss: 'completion' as const }
  const rows: Rows = { training: [], held: [] }
  for await (const { held, row } of chosen(data.split(','))) {
    const encoded = encodeSftRow(row.value, rules)
    if (encoded.tokens.length <= most) rows[held ? 'held' : 'training'].push(encoded)
  }
  return rows
}

/** Rows in an order of their own. */
function shuffled<T>(rows: readonly T[]): T[] {
  return rows
    .map((row, i) => ({ row, draw: randomBits(1, 0, i) }))
    .sort((a, b) => a.draw - b.draw)
    .map(({ row }) => row)
}

/** Mean loss of rows with an adapter. */
async function lossOf(device: Device, directory: ModelDirectory, start: Adapter, rows: readonly SftRow[]) {
  const model = await openBackbone(device, directory)
  const info = directory.tensors.get('lm_head.weight') ?? model.tensors.embedding
  const output = await openOutputLayer(device, model.config, info)
  const adapter = new AdapterParameters(device, start, model.config)
  const { loss, learned, hits } = await evaluateRows(device, model, output, adapter, rows, 1024)
  for (const thing of [adapter, output, model]) thing.destroy()
  return { loss: loss / learned, accuracy: hits / learned, learned }
}

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      model: { type: 'string' },
      data: { type: 'string' },
      out: { type: 'string' },
      device: { type: 'string', default: 'wasm' },
      threads: { type: 'string' },
      rank: { type: 'string', default: '8' },
      alpha: { type: 'string', default: '16' },
      lr: { type: 'string', default: '3e-4' },
      batch: { type: 'string', default: '2' },
      steps: { type: 'string', default: '200' },
      epochs: { type: 'string', default: '1' },
      'max-length': { type: 'string', default: '256' },
      held: { type: 'string', default: '48' },
      help: { type: 'boolean' },
    },
  })
  const { model: path, data, out } = values
  if (values.help || !path || !data || !out) {
    console.log(HELP)
    return
  }
  if (!DEVICE_KINDS.includes(values.device as DeviceKind))
    throw new Error(`bench: --device must be one of ${DEVICE_KINDS.join(', ')}, got ${values.device}`)
  const threads = values.threads === undefined ? undefined : Number(values.threads)
  const device = await openDevice(values.device as DeviceKind, { threads })
  const files = await openDirectory(path)
  const directory = await openModelDirectory(files)
  const rows = await readRows(directory, data, Number(values['max-length']))
  const [batch, maxSteps] = [Number(values.batch), Number(values.steps)]
  const held = shuffled(rows.held).slice(0, Number(values.held))
  const training = shuffled(rows.training).slice(0, batch * maxSteps)
  const adapter = await writeStart(`${out}/start`, device, directory, Number(values.rank), Number(values.alpha))
  const plain = ({ tokens, labels }: SftRow) => ({ tokens: [...tokens], labels: [...labels] })
  const lr = Number(values.lr)
  await writeFile(
    `${out}/rows.json`,
    JSON.stringify({
      ...{ batch, lr, steps: maxSteps, epochs: Number(values.epochs) },
      rows: training.map(plain),
      held: held.map(plain),
    }),
  )
  const before = await lossOf(device, directory, adapter, held)
  console.error(`${training.length} rows, ${held.length} held out: loss ${before.loss.toFixed(4)} before`)
  const begin = performance.now()
  await mkdir(`${out}/run`, { recursive: true })
  const tuned = await trainSft(device, files, training, held, {
    ...{ adapter: await openDirectory(`${out}/start`), store: directoryTree(`${out}/run`), lr, batch, maxSteps },
    ...{ epochs: Number(values.epochs), shuffle: false, checkpointing: true },
    onProgress({ step, steps, loss }) {
      if (step % 10 === 0) console.error(`step ${step} of ${steps}: ${loss?.toFixed(4)}`)
    },
  })
  const seconds = (performance.now() - begin) / 1000
  const after = await lossOf(device, directory, tuned.adapter, held)
  const lines = (await readFile(`${out}/run/log.jsonl`, 'utf8')).trim().split('\n')
  const entries = lines.map((line) => JSON.parse(line) as SftEntry).filter((entry) => 'loss' in entry)
  const cpu = process.cpuUsage()
  const result = {
    ...{ device: device.description, model: path, rows: training.length, held: held.length, tokens: tuned.num_tokens },
    ...{ steps: tuned.steps, parameters: tuned.parameters, seconds, cpuSeconds: (cpu.user + cpu.system) / 1e6 },
    ...{ before, after, losses: entries.map(({ loss }) => loss), norms: entries.map((entry) => entry.grad_norm) },
  }
  await writeFile(`${out}/curve.json`, JSON.stringify(result))
  await directory.close()
  await device.destroy()
  const { losses, norms, ...rest } = result
  console.log(
    `held-out loss ${before.loss.toFixed(4)} before, ${after.loss.toFixed(4)} after ${tuned.steps} steps; token accuracy ` +
      `${before.accuracy.toFixed(4)}, ${after.accuracy.toFixed(4)}; ${held.length} rows, ${before.learned} learned tokens`,
  )
  console.log(JSON.stringify({ ...rest, first: losses[0], last: losses.at(-1), norms: norms.length }))
}

/** The adapter that both begin with, as files. */
async function writeStart(folder: string, device: Device, directory: ModelDirectory, rank: number, alpha: number) {
  const model = await openBackbone(device, directory)
  const config = newAdapterConfig({ task: 'CAUSAL_LM', rank, alpha, targets: 'all-linear', dropout: 0 })
  const start = startAdapter(config, model.config, 0)
  await mkdir(folder, { recursive: true })
  for (const { file, chunks } of encodeAdapter(start, model.config))
    await writeFile(`${folder}/${file}`, Buffer.concat([...chunks].map((chunk) => new Uint8Array(chunk))))
  model.destroy()
  return start
}
