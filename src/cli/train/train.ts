// pinball train: from ratings, and pairs where there are any, to an evaluated reward model over a backbone.
import { type Command, Option } from 'commander'
import type { DeviceKind } from '../../device/open.ts'
import {
  type OwnGateSettings,
  type OwnModelSettings,
  PARTS,
  ratedFields,
  trainOwnModel,
} from '../../evaluate/own_model.ts'
import { directoryTree, openDirectory } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import { evaluationNotes } from '../../report/heads.ts'
import { ownModelText } from '../../report/own_model.ts'
import type { FixedWeights } from '../../reward/manifest.ts'
import { type Part, parseParts } from '../../reward/split.ts'
import type { Unit } from '../../reward/unit.ts'
import { claimOutputs } from '../claims.ts'
import { withDevice } from '../engine.ts'
import { startLevels } from '../fit/progress.ts'
import { interruptible } from '../interrupt.ts'
import {
  checkOption,
  computeOptions,
  fileName,
  limitOptions,
  parseAlpha,
  parseFixedWeights,
  parseInputs,
  parseLevels,
  parseNames,
  parseOut,
  positive,
  unitOption,
  usageError,
  wholeNumber,
} from '../options.ts'
import { note, print, printJson } from '../output.ts'
import { type Phases, startPhases, startRows } from '../progress.ts'
import { readRows } from '../rows.ts'
import { USUAL_PARTS } from '../split.ts'

interface TrainCommand
  extends Pick<OwnModelSettings, 'levels' | 'alpha' | 'seed' | 'dtype' | 'maxLength' | 'skipInvalid'>,
    OwnGateSettings {
  readonly ratings: string[]
  readonly pairs?: string[]
  readonly backbone: string
  readonly out: string
  readonly labels?: string[]
  readonly parts: Part[]
  readonly unit: Unit
  readonly intercept: boolean
  /** Absent: an attribute of a usual name; false: none. */
  readonly debias?: string | false
  readonly attributeWeights: FixedWeights
  readonly restart?: boolean
  readonly device: DeviceKind
  readonly threads?: number
  readonly json?: boolean
}

const USUAL_UNWANTED = ['verbosity', 'helpsteer-verbosity']

const EXAMPLES = `
Does what "pinball split", "features", "fit", "debias", "gate", "calibrate", "assemble" and "eval" do, one after the other. Ratings are rows
as "pinball features" reads them; without --labels all fields that hold numbers are attributes. Rows are divided by a hash of the item
into fit, calibrate and test (--parts), pairs by their prompts: those of the test part are for the evaluation, all others for the gate.
Without pairs, or with one attribute, the attributes have fixed weights (--attribute-weights) and there is no gate. An attribute
"verbosity" is taken out of the others, unless --no-debias says not to.

--out holds features/, heads/, reward/ (heads with gate or weights, and calibration), model/ (with the backbone, for "pinball score") and
report.json, which says what the test part says. After Ctrl-C (exit code 130) or a crash the same command goes on; finished again it says
so. A stage is done again only where its settings, what it reads or its files have changed. A fit or gate that was cut off is never
continued with other settings, unless --restart begins it anew.

Examples:
  $ pinball train --ratings ratings.jsonl --backbone ./Llama-3-8B --out my
  $ pinball train --ratings ratings.csv --pairs pairs.jsonl --backbone ./SmolLM2-135M --alpha auto --out my --json
  $ pinball train --ratings ratings.jsonl --labels helpful,kind --attribute-weights helpful=0.7,kind=0.3 --backbone models/nano --out my
  $ pinball score --model my/model --prompt "How was the film?" --response "A delight."
`

/** Adds the command to the program. */
export function addTrain(program: Command): void {
  const command = program
    .command('train')
    .description('make and evaluate a reward model from ratings, and pairs where there are any, in one go')
    .requiredOption(
      '--ratings <files...>',
      'rated rows: JSON Lines or a list (plain or gzip), Parquet or CSV',
      parseInputs,
    )
    .option('--pairs <files...>', 'pairs, for the gate and the evaluation', parseInputs)
    .requiredOption(
      '--backbone <dir>',
      'model directory with the backbone and the tokenizer',
      fileName('--backbone', 'directory'),
    )
    .requiredOption('--out <dir>', 'folder for everything that is made', parseOut)
    .option('--labels <names>', 'attributes, with commas (default: all fields that hold numbers)', parseNames)
    .addOption(
      new Option('--parts <parts>', `shares of ${PARTS.join(', ')}`)
        .argParser((text) => checkOption('--parts', () => threeParts(text)))
        .default(parseParts(USUAL_PARTS), USUAL_PARTS),
    )
    .option('--seed <n>', 'of the parts and the gate', wholeNumber(0, 2 ** 31 - 1), 0)
    .addOption(
      new Option('--levels <levels>', 'number of levels, or the levels with commas')
        .argParser(parseLevels)
        .default(parseLevels('19'), '19'),
    )
    .option('--alpha <number>', 'penalty on the absolute weights; auto: by cross-validation', parseAlpha, 0.003)
    .option('--no-intercept', 'fit no constants')
    .option(
      '--debias <attribute>',
      'attribute that is taken out of the others (default: verbosity, where there is one)',
    )
    .option('--no-debias', 'take none out')
    .option(
      '--attribute-weights <weights>',
      'without a gate: mean, or NAME=NUMBER with commas',
      parseFixedWeights,
      'mean',
    )
    .option('--hidden <n>', "units of the gate's hidden layers", wholeNumber(1, 65536), 64)
    .option('--layers <n>', "the gate's hidden layers", wholeNumber(0, 16), 3)
    .option('--temperature <number>', "of the gate's softmax", positive, 1)
    .option('--margin-scale <number>', "factor of the margin in the gate's loss", positive, 1)
    .option('--batch <n>', "pairs of a step of the gate's", wholeNumber(2, 2 ** 20), 128)
    .option('--epochs <n>', 'times that the pairs are gone through', wholeNumber(1, 1e6), 3)
    .option('--lr <number>', "the gate's learning rate", positive, 3e-4)
    .addOption(new Option('--dtype <dtype>', 'how features are stored').choices(['f32', 'bf16']).default('f32'))
    .option('--restart', 'begin a fit or a gate anew that was cut off with other settings')
  computeOptions(limitOptions(unitOption(command)))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: TrainCommand) => train(options))
}

function threeParts(text: string): Part[] {
  const parts = parseParts(text)
  const missing = PARTS.find((name) => !parts.some((part) => part.name === name))
  if (missing !== undefined || parts.length > PARTS.length) throw new Error(`must be shares of ${PARTS.join(', ')}`)
  return parts
}

async function train(options: TrainCommand): Promise<void> {
  const { ratings, pairs, backbone, out, threads, restart, json } = options
  if ([...ratings, ...(pairs ?? [])].filter((input) => input === '-').length > 1)
    usageError('--ratings and --pairs: standard input can be read once')
  const folder = out.replace(/(?<=.)[\\/]+$/, '')
  await claimOutputs({
    inputs: { '--ratings': ratings, '--pairs': pairs, '--backbone': backbone },
    folders: { '--out': folder },
  })
  const start = performance.now()
  const files = await openDirectory(backbone)
  const rated = await readRows(ratings)
  const labels = options.labels ?? ratedFields(rated)
  const usual = labels.length > 1 ? USUAL_UNWANTED.find((name) => labels.includes(name)) : undefined
  const unwanted = options.debias === false ? null : (options.debias ?? usual ?? null)
  const { hidden, layers, temperature, marginScale, batch, epochs, lr } = options
  const { parts, seed, unit, levels, alpha, intercept, dtype, maxLength, skipInvalid } = options
  const gate = { hidden, layers, temperature, marginScale, batch, epochs, lr }
  const paired = pairs ? await readRows(pairs) : null
  const report = await interruptible('train', ({ signal, code }) =>
    withDevice(options, async (device) => {
      // The line of the stage that is going on.
      const lines: { rows?: ReturnType<typeof startRows>; levels?: ReturnType<typeof startLevels>; steps?: Phases } = {}
      const end = () => {
        for (const line of Object.values(lines)) line.end()
        for (const key of ['rows', 'levels', 'steps'] as const) delete lines[key]
      }
      try {
        return await trainOwnModel(device, {
          ...{ ratings: rated, pairs: paired, backbone: files, out: directoryTree(folder) },
          ...{ labels, parts, seed, unit, levels, alpha, intercept, unwanted, dtype, maxLength, skipInvalid, gate },
          ...{ weights: options.attributeWeights, threads, restart, signal },
          onNote: (line) => note(`train: note: ${line}`),
          onStage(name, done) {
            end()
            note(`train: ${name}${done ? ', done already' : ''}`)
          },
          onRows(progress) {
            lines.rows ??= startRows()
            lines.rows.update(progress)
          },
          onLevels(progress) {
            lines.levels ??= startLevels()
            lines.levels.update(progress)
          },
          onSteps(doing, done, total) {
            lines.steps ??= startPhases()
            lines.steps.update(doing, done, total)
          },
        })
      } catch (error) {
        if (!signal.aborted) throw error
        note(
          `train: interrupted; what is finished is kept in ${printable(folder)}, and the same command goes on from there`,
        )
        process.exitCode = code()
        return null
      } finally {
        end()
      }
    }),
  )
  if (report === null) return
  for (const line of evaluationNotes({ calibration: null }, { calibrated: true }, report.calibrated))
    note(`train: note: ${line}`)
  if (json) return printJson({ out: folder, ...report, ms: performance.now() - start })
  await print(ownModelText(report, folder))
}
