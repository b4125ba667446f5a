// What commands that train adapters have in common: options, model and rows, interrupts, progress and the report.
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Device } from '../../device/device.ts'
import type { DeviceKind } from '../../device/open.ts'
import { directoryTree, openDirectory } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import type { FileRecord } from '../../files/records.ts'
import type { ModelFiles } from '../../files/source.ts'
import { PROJECTIONS } from '../../llama/adapter_plan.ts'
import type { ProjectionName } from '../../llama/weights.ts'
import { duration } from '../../report/draw.ts'
import type { AdapterProgress, AdapterTraining, KeepOptions } from '../../train/adapter_training.ts'
import { openTextRules, type TextRules } from '../../train/row_text.ts'
import { holdOut } from '../../train/sft.ts'
import { claimOutputs, type Paths } from '../claims.ts'
import { withDevice } from '../engine.ts'
import { interruptible } from '../interrupt.ts'
import { computeOptions, fileName, parseOut, positive, realNumber, usageError, wholeNumber } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startStatus } from '../progress.ts'
import { eachRow } from '../rows.ts'

/** The options that `adapterOptions` adds. */
export interface AdapterCommand extends Omit<AdapterTraining, keyof NewAdapterOptions | 'adapter'>, NewAdapterOptions {
  readonly model: string
  readonly data: string
  readonly out: string
  readonly adapter?: string
  readonly maxLength: number
  /** A file of rows, or a share of the rows of --data. */
  readonly eval?: string | number
  readonly restart?: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

/** How a new adapter begins; absent where they are not given. */
interface NewAdapterOptions {
  readonly rank?: number
  readonly alpha?: number
  readonly targets?: readonly ProjectionName[] | 'all-linear'
  readonly dropout?: number
}

export const ADAPTER_HELP = `
A step computes --batch of them, --micro-batch at a time (by default as many as have 1,024 tokens in all on a CPU, 4,096 on a GPU);
the sum does not depend on how it is cut, but for rounding. --warmup counts steps, or is a share of all steps where it is below 1.
--max-grad-norm 0 does not clip. --checkpointing computes activations again instead of keeping them: less memory, the same bits.

--out holds adapter_config.json and adapter_model.safetensors as PEFT writes them, log.jsonl (a line a step), an event file for
TensorBoard, training.json with all settings and the result, and with --save-steps the last three checkpoint-N. After Ctrl-C (exit
code 130), SIGTERM (143) or a crash the same command goes on from the last state and writes the same files, bit for bit, but for
the event file, which holds times. Files in --out that no training has made are never touched.`

const atLeast0 = realNumber((value) => value >= 0 && value < Infinity, 'of at least 0')
const shareBelow1 = realNumber((value) => value >= 0 && value < 1, 'from 0 to below 1')
const count = wholeNumber(1, 2 ** 20)

/** An option with a default that help says in words. */
function told<T>(flags: string, description: string, parse: (text: string) => T, [value, words]: [T | null, string]) {
  return new Option(flags, description).argParser(parse).default(value, words)
}

/** Adds the options; `rows` is what --data holds, `unit` what --batch counts. */
export function adapterOptions(
  command: Command,
  defaults: AdapterTraining & { readonly maxLength: number },
  { rows, unit }: { readonly rows: string; readonly unit: string },
): Command {
  const { targets } = defaults
  command
    .requiredOption('--model <dir>', 'model directory of the base', fileName('--model', 'directory'))
    .requiredOption(
      '--data <file>',
      `${rows}: JSON Lines or a list (plain or gzip), Parquet; - for standard input`,
      fileName('--data', 'file name or -'),
    )
    .requiredOption('--out <dir>', 'directory for the adapter, the log and the state', parseOut)
    .option('--adapter <dir>', 'an adapter to go on with (default: a new one)', fileName('--adapter', 'directory'))
    .option('--rank <n>', `rank of a new adapter (default: ${defaults.rank})`, wholeNumber(1, 65536))
    .option('--alpha <number>', `alpha of a new adapter (default: ${defaults.alpha})`, positive)
    .option('--targets <names>', `maps that a new adapter changes, with commas (default: ${targets})`, parseTargets)
    .option('--dropout <share>', `dropout of a new adapter (default: ${defaults.dropout})`, shareBelow1)
    .option('--lr <number>', 'peak of the learning rate', positive, defaults.lr)
    .addOption(
      new Option('--schedule <schedule>', 'how it falls')
        .choices(['cosine', 'linear', 'constant'])
        .default(defaults.schedule),
    )
    .option('--warmup <number>', 'steps of warm-up, or their share', atLeast0, defaults.warmup)
    .option('--weight-decay <number>', 'weight decay of AdamW', atLeast0, defaults.weightDecay)
    .option('--max-grad-norm <number>', 'largest norm of the gradients', atLeast0, defaults.maxGradNorm)
    .option('--batch <n>', `${unit} of a step`, count, defaults.batch)
    .addOption(told('--micro-batch <n>', `${unit} that are computed at once`, count, [null, 'by their tokens']))
    .option('--epochs <n>', 'times that the data are gone through', wholeNumber(1, 1e6), defaults.epochs)
    .addOption(told('--max-steps <n>', 'end after so many steps', wholeNumber(1, 1e9), [null, 'all of the epochs']))
    .option('--max-length <tokens>', 'longer rows are dropped and counted', count, defaults.maxLength)
    .option('--no-shuffle', 'keep the order of the rows')
    .option('--seed <n>', 'of the initial weights, the order and dropout', wholeNumber(0, 2 ** 31 - 1), defaults.seed)
    .addOption(new Option('--checkpointing', 'compute activations again instead of keeping them').default(false, 'off'))
    .option('--eval <file|share>', 'rows to evaluate on: a file, or a share of --data below 1', parseEval)
    .addOption(
      told('--eval-steps <n>', 'steps between two evaluations', wholeNumber(1, 1e9), [0, 'after the last step']),
    )
    .addOption(told('--save-steps <n>', 'steps between two checkpoints', wholeNumber(1, 1e9), [0, 'none']))
    .option('--restart', 'begin anew, whatever --out holds of an earlier training')
  return computeOptions(command).option('--json', 'print one JSON document')
}

function parseTargets(text: string): readonly ProjectionName[] | 'all-linear' {
  if (text === 'all-linear') return text
  const names = text.split(',').map((name) => name.trim())
  const bad = names.find((name, i) => !PROJECTIONS.includes(name as ProjectionName) || names.indexOf(name) !== i)
  if (bad !== undefined) {
    throw new InvalidArgumentError(`Must be all-linear, or some of ${PROJECTIONS.join(', ')} with commas, none twice.`)
  }
  return names as ProjectionName[]
}

/** A number is a share; a file of such a name can be given as ./0.1. */
function parseEval(text: string): string | number {
  if (text.trim() === '' || Number.isNaN(Number(text))) return fileName('--eval', 'file name or a share')(text.trim())
  return realNumber((share) => share > 0 && share < 1, 'above 0 and below 1, or a file name')(text)
}

/** What differs between one training of adapters and another. */
export interface AdapterRecipe<Row> {
  /** Encodes the rows of a file; those that are too long are counted. */
  encode(
    records: AsyncIterable<FileRecord>,
    rules: TextRules,
  ): Promise<{ readonly rows: readonly Row[]; readonly dropped: number }>
  train(
    base: { readonly device: Device; readonly files: ModelFiles },
    rows: { readonly training: readonly Row[]; readonly held: readonly Row[] },
    settings: Partial<AdapterTraining> & KeepOptions,
  ): Promise<AdapterReport>
}

/** What was trained, as the command shows it. */
export interface AdapterReport {
  /** Of the library's call: fields of the document. */
  readonly result: object
  readonly finished: boolean
  /** For people. */
  readonly line: string
}

/** Runs a training of an adapter from where its folder is to its end, or to an interrupt, and reports. */
export async function runAdapterTraining<Row>(
  name: string,
  options: AdapterCommand,
  recipe: AdapterRecipe<Row>,
  inputs: Paths = {},
): Promise<void> {
  const { model, data, adapter, out, lr } = options
  const given = (['rank', 'alpha', 'targets', 'dropout'] as const).find((key) => options[key] !== undefined)
  if (adapter !== undefined && given !== undefined) {
    usageError(`--${given}: is for a new adapter; that of --adapter has its own`)
  }
  if (options.evalSteps > 0 && options.eval === undefined) usageError('--eval-steps: needs --eval')
  const evalFile = typeof options.eval === 'string' ? options.eval : undefined
  if (data === '-' && evalFile === '-') usageError('--data and --eval: standard input can be read once')
  await claimOutputs({
    inputs: { '--model': model, '--adapter': adapter, '--data': data, '--eval': evalFile, ...inputs },
    folders: { '--out': out },
  })
  const start = performance.now()
  const files = await openDirectory(model)
  const own = adapter === undefined ? null : await openDirectory(adapter)
  const rules = await openTextRules(files, options.maxLength)
  const { dropped, ...rows } = await readAll(options, rules, recipe)
  if (lr < LORA_LR) note(`${name}: note: --lr ${lr} is small for LoRA, which mostly needs 1e-4 and more`)
  if (dropped > 0) note(`${name}: note: rows of more than ${rules.maxLength} tokens are left out: ${dropped}`)
  await withDevice(options, (device) =>
    interruptible(name, async ({ signal, code }) => {
      const progress = startTraining(device)
      let saved = 0
      const settings: Partial<AdapterTraining> & KeepOptions = {
        ...pickSettings(options),
        ...{ adapter: own, store: directoryTree(out), restart: options.restart, signal, onNote: note },
        record: { '--model': model, '--data': data, '--adapter': adapter ?? null, '--eval': options.eval ?? null },
        onProgress: progress.update,
        onSave(step) {
          saved = step
        },
      }
      try {
        const { result, finished, line } = await recipe.train({ device, files }, rows, settings)
        progress.end()
        if (finished) note(`${name}: ${printable(out)} holds this training, finished; --restart begins it anew`)
        const ms = performance.now() - start
        if (options.json) await printJson({ ...result, dropped, out, ms, tokens_per_second: progress.rate() })
        else await print(`${printable(out)}: ${line}\n`)
      } catch (error) {
        progress.end()
        if (!signal.aborted) throw error
        const kept = saved === 0 ? 'no step was made' : `step ${saved} is saved in ${printable(out)}`
        note(`${name}: interrupted; ${kept}; the same command goes on from there`)
        process.exitCode = code()
      }
    }),
  )
}

/** Reads and encodes the rows of --data and of --eval, or holds a share back. */
async function readAll<Row>({ data, eval: held, seed }: AdapterCommand, rules: TextRules, recipe: AdapterRecipe<Row>) {
  const { rows, dropped } = await recipe.encode(eachRow(data), rules)
  if (typeof held === 'number') return { ...holdOut(rows, held, seed), dropped }
  if (held === undefined) return { training: rows, held: [], dropped }
  const others = await recipe.encode(eachRow(held), rules)
  return { training: rows, held: others.rows, dropped: dropped + others.dropped }
}

/** Below this a note is printed. */
const LORA_LR = 1e-5

/** What the library's call takes of the options; those of a new adapter only where they are given. */
function pickSettings(options: AdapterCommand): Partial<AdapterTraining> {
  const { rank, alpha, targets, dropout, lr, schedule, warmup, weightDecay, maxGradNorm } = options
  const { batch, microBatch, epochs, maxSteps, shuffle, seed, checkpointing, evalSteps, saveSteps } = options
  const fresh = Object.entries({ rank, alpha, targets, dropout }).filter(([, value]) => value !== undefined)
  return {
    ...Object.fromEntries(fresh),
    ...{ lr, schedule, warmup, weightDecay, maxGradNorm, batch, microBatch, epochs, maxSteps, shuffle, seed },
    ...{ checkpointing, evalSteps, saveSteps },
  }
}

/** A line on standard error: steps, tokens a second, loss, norm, time left, memory. */
function startTraining(device: Device) {
  const status = startStatus()
  let first: (AdapterProgress & { readonly at: number }) | undefined
  let last: typeof first
  const rate = (): number | null =>
    first && last && last.tokens > first.tokens ? (last.tokens - first.tokens) / ((last.at - first.at) / 1000) : null
  return {
    update(now: AdapterProgress) {
      last = { ...now, at: performance.now() }
      first ??= last
      const begin = first
      status.show(() => {
        const part = (now.done - begin.done) / (now.steps - begin.done)
        const seconds = (performance.now() - begin.at) / 1000
        const found = rate()
        return [
          `step ${Math.min(now.steps, Math.floor(now.done) + 1)} of ${now.steps}`,
          ...(found === null ? [] : [`${Number(found.toPrecision(3))} tokens a second`]),
          ...(now.loss === null ? [] : [`loss ${now.loss.toFixed(4)}`]),
          ...(now.gradNorm === null ? [] : [`gradient norm ${Number(now.gradNorm.toPrecision(3))}`]),
          ...(part > 0 ? [`${duration((seconds * (1 - part)) / part)} left`] : []),
          memoryText(device),
        ].join(', ')
      })
    },
    /** Tokens a second of what was computed; null where nothing was. */
    rate,
    end: status.end,
  }
}

/** Memory of the process, and of tensors on a GPU. */
function memoryText(device: Device): string {
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`
  const own = gigabytes(process.memoryUsage.rss())
  return device.kind === 'wasm' ? own : `${own} and ${gigabytes(device.statistics().bytes)} on the GPU`
}
