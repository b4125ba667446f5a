// What commands that train adapters have in common: options, model and rows, interrupts, progress and the report.
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { DeviceKind } from '../../device/open.ts'
import { directoryTree, openDirectory } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import type { WorkSettings } from '../../files/work.ts'
import { PROJECTIONS } from '../../llama/adapter_plan.ts'
import type { ProjectionName } from '../../llama/weights.ts'
import { beginningNotes, stepText, tokenRate } from '../../report/adapter_training.ts'
import { skippedNotes } from '../../report/scores.ts'
import type { Timed } from '../../report/training.ts'
import { type AdapterRecipe, pickSettings, readTrainingRows } from '../../train/adapter_recipes.ts'
import type { AdapterProgress, AdapterTraining } from '../../train/adapter_training.ts'
import { openTextRules } from '../../train/row_text.ts'
import { claimOutputs, type Paths } from '../claims.ts'
import { withDevice } from '../engine.ts'
import { interruptibleTraining } from '../interrupt.ts'
import { computeOptions, fileName, parseOut, positive, realNumber, usageError, wholeNumber } from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { startStatus } from '../progress.ts'
import { eachRow } from '../rows.ts'

/** The options that `adapterOptions` adds. */
export interface AdapterCommand
  extends Omit<AdapterTraining, keyof NewAdapterOptions | 'adapter' | 'epochs'>,
    NewAdapterOptions {
  readonly model: string
  readonly data: string
  readonly out: string
  readonly adapter?: string
  readonly epochs: number | null
  readonly maxLength: number
  readonly skipInvalid?: boolean
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

/** What --out holds. */
export const OUT_HELP = `
--out holds adapter_config.json and adapter_model.safetensors as PEFT writes them, log.jsonl (a line a step), an event file for
TensorBoard, training.json with all settings and the result, and with --save-steps the last three checkpoint-N. After Ctrl-C (exit
code 130), SIGTERM (143) or a crash the same command goes on from the last state and writes the same files, bit for bit, but for
the event file, which holds times. Files in --out that no training has made are never touched.`

export const ADAPTER_HELP = `
A step computes --batch of them, --micro-batch at a time (by default as many as have 1,024 tokens in all on a CPU, 4,096 on a GPU);
the sum does not depend on how it is cut, but for rounding. --warmup counts steps, or is a share of all steps where it is below 1.
--max-grad-norm 0 does not clip. --checkpointing computes activations again instead of keeping them: less memory, the same bits.
${OUT_HELP}`

export const atLeast0 = realNumber((value) => value >= 0 && value < Infinity, 'of at least 0')
const shareBelow1 = realNumber((value) => value >= 0 && value < 1, 'from 0 to below 1')
export const count = wholeNumber(1, 2 ** 20)

/** An option with a default that help says in words. */
export function told<T>(
  flags: string,
  description: string,
  parse: (text: string) => T,
  [value, words]: [T | null, string],
) {
  return new Option(flags, description).argParser(parse).default(value, words)
}

/** What differs between the options of one command and another. */
interface OptionNames {
  /** What the file of rows holds, and what --batch counts. */
  readonly rows: string
  readonly unit: string
  /** The options for that file and for the longest row, and what becomes of longer ones. */
  readonly data?: string
  readonly limit?: readonly [option: string, description: string]
}

/** Adds the options. */
export function adapterOptions(
  command: Command,
  defaults: Omit<AdapterTraining, 'epochs'> & { readonly epochs: number | null; readonly maxLength: number },
  { rows, unit, data = '--data', limit = ['--max-length', 'longer rows are dropped and counted'] }: OptionNames,
): Command {
  const { targets } = defaults
  command
    .requiredOption('--model <dir>', 'model directory of the base', fileName('--model', 'directory'))
    .requiredOption(
      `${data} <file>`,
      `${rows}: JSON Lines or a list (plain or gzip), Parquet; - for standard input`,
      fileName(data, 'file name or -'),
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
    .addOption(
      told('--epochs <n>', 'times that the data are gone through', wholeNumber(1, 1e6), [
        defaults.epochs,
        defaults.epochs === null ? '1, or as many as --max-steps takes' : `${defaults.epochs}`,
      ]),
    )
    .addOption(told('--max-steps <n>', 'end after so many steps', wholeNumber(1, 1e9), [null, 'all of the epochs']))
    .option(`${limit[0]} <tokens>`, limit[1], count, defaults.maxLength)
    .option('--skip-invalid', 'leave out rows that are not valid, and say which')
    .option('--no-shuffle', 'keep the order of the rows')
    .option('--seed <n>', 'of the initial weights, the order and dropout', wholeNumber(0, 2 ** 31 - 1), defaults.seed)
    .addOption(new Option('--checkpointing', 'compute activations again instead of keeping them').default(false, 'off'))
    .option('--eval <file|share>', `${rows} to evaluate on: a file, or a share of ${data} below 1`, parseEval)
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

/** What differs between one run and another. */
interface RunOptions {
  /** Paths that are read, beside those that all trainings have. */
  readonly inputs?: Paths
  /** The option that names the rows. */
  readonly data?: string
  /** Calls rows that are too long. */
  readonly long?: (maxLength: number) => string
  /** What else training.json is to say. */
  readonly record?: WorkSettings
}

/** Runs a training of an adapter from where its folder is to its end, or to an interrupt, and reports. */
export async function runAdapterTraining<Row, Result extends object>(
  command: string,
  options: AdapterCommand,
  recipe: AdapterRecipe<Row, Result>,
  textOf: (result: Result) => string,
  { inputs = {}, data: dataOption = '--data', long, record }: RunOptions = {},
): Promise<void> {
  const { model, data, adapter, out, eval: held } = options
  const given = (['rank', 'alpha', 'targets', 'dropout'] as const).find((key) => options[key] !== undefined)
  if (adapter !== undefined && given !== undefined) {
    usageError(`--${given}: is for a new adapter; that of --adapter has its own`)
  }
  if (options.evalSteps > 0 && held === undefined) usageError('--eval-steps: needs --eval')
  const evalFile = typeof held === 'string' ? held : undefined
  if (data === '-' && evalFile === '-') usageError(`${dataOption} and --eval: standard input can be read once`)
  await claimOutputs({
    inputs: { '--model': model, '--adapter': adapter, [dataOption]: data, '--eval': evalFile, ...inputs },
    folders: { '--out': out },
  })
  const start = performance.now()
  const files = await openDirectory(model)
  const own = adapter === undefined ? null : await openDirectory(adapter)
  const skipped: string[] = []
  const onInvalid = options.skipInvalid && { onInvalid: (reason: string) => skipped.push(reason) }
  const rules = { ...(await openTextRules(files, options.maxLength)), ...onInvalid }
  const others = typeof held === 'string' ? eachRow(held) : held
  const { dropped, ...rows } = await readTrainingRows(recipe, rules, eachRow(data), others, options.seed)
  for (const line of skippedNotes(skipped)) note(`${command}: note: ${line}`)
  const { maxLength } = rules
  for (const line of beginningNotes(options.lr, dropped, maxLength, long?.(maxLength)))
    note(`${command}: note: ${line}`)
  await withDevice(options, (device) => {
    const progress = startStatus()
    const seen: { first?: Timed<AdapterProgress>; last?: Timed<AdapterProgress> } = {}
    return interruptibleTraining({
      ...{ command, out, progress },
      train: (signal, onSave) =>
        recipe.train({ device, files }, rows, {
          ...pickSettings({ ...options, epochs: options.epochs ?? undefined, adapter: own }),
          ...{ store: directoryTree(out), restart: options.restart, signal, onNote: note },
          record: {
            '--model': model,
            [dataOption]: data,
            '--adapter': adapter ?? null,
            '--eval': held ?? null,
            ...record,
          },
          onProgress(now) {
            const last = { ...now, at: performance.now() }
            seen.last = last
            seen.first ??= last
            const { first } = seen
            progress.show(() => stepText(first, last, device, process.memoryUsage.rss()))
          },
          // Before the first step there is nothing to go on from.
          onSave: (step) => step > 0 && onSave(step),
        }),
      async report({ result }) {
        const times = { ms: performance.now() - start, tokens_per_second: tokenRate(seen.first, seen.last) }
        if (options.json) await printJson({ ...result, dropped, out, ...times })
        else await print(`${printable(out)}: ${textOf(result)}\n`)
      },
    })
  })
}
