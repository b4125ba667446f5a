// pinball gate: the gate of a reward model, trained on pairs over frozen heads.
import { type Command, Option } from 'commander'
import { withFile } from '../../files/file_list.ts'
import { readHeadsFile } from '../../reward/heads_file.ts'
import { GATE_DEFAULTS } from '../../train/gating.ts'
import { trainGate } from '../../train/recipes.ts'
import { fileName, positive, usageError, wholeNumber } from '../options.ts'
import { startProgress } from '../progress.ts'
import { runTraining, TRAINING_HELP, type TrainingOptions, trainingOptions } from './training.ts'

interface GateCommand extends TrainingOptions {
  readonly heads: string
  readonly hidden: number
  readonly layers: number
  readonly temperature: number
  readonly logitScale: number
  readonly norm?: 'batch' | 'none'
}

const EXAMPLES = `${TRAINING_HELP}

--heads is what "pinball fit", "pinball debias" or "pinball ridge" has written. The loss is -log sigmoid(margin) with the margin
sum over attributes of gate * (expectation of the chosen response - that of the rejected one) * --margin-scale. Quantile heads get a
gate of QRM (batch norm), point heads one of ArmoRM (--norm none); the model directory has the layout that goes with it, without a
backbone: "pinball assemble" joins it with one.

Examples:
  $ pinball features --input pairs.jsonl --out pairs.safetensors
  $ pinball gate --features pairs.safetensors --heads heads.safetensors --out reward
  $ pinball gate --features pairs/ --heads heads.safetensors --out reward --epochs 1 --lr 1e-3 --save-every 30s --json
  $ pinball gate --features pairs.safetensors --heads ridge.safetensors --out armo --hidden 256 --layers 2
`

/** Adds the command to the program. */
export function addGate(program: Command): void {
  const command = program.command('gate').description('train the gate on pairs of features, over frozen heads')
  trainingOptions(command)
    .requiredOption('--heads <file>', 'heads: safetensors', fileName('--heads', 'file name'))
    .option('--hidden <n>', 'units of a hidden layer', wholeNumber(1, 65536), GATE_DEFAULTS.hidden)
    .option('--layers <n>', 'hidden layers', wholeNumber(0, 16), GATE_DEFAULTS.layers)
    .option('--temperature <number>', 'of the softmax', positive, GATE_DEFAULTS.temperature)
    .option('--logit-scale <number>', 'factor of the softmax', positive, GATE_DEFAULTS.logitScale)
    .addOption(
      new Option('--norm <norm>', 'after each hidden layer (default: batch; none for point heads)').choices([
        'batch',
        'none',
      ]),
    )
    .addHelpText('after', EXAMPLES)
    .action(async (options: GateCommand) => gate(options))
}

async function gate(options: GateCommand): Promise<void> {
  const heads = await withFile(options.heads, readHeadsFile)
  const { hidden, layers, temperature, logitScale } = options
  const usual = heads.levels === null ? 'none' : 'batch'
  if (options.norm !== undefined && options.norm !== usual) {
    const [kind, layout] = usual === 'none' ? ['point heads', 'ArmoRM'] : ['quantile heads', 'QRM']
    usageError(`--norm: must be ${usual} for ${kind}, as models of ${layout} have it, got ${options.norm}`)
  }
  const progress = startProgress('pairs through the heads')
  const onRewards = (done: number, pairs: number) => {
    progress.update(done, pairs)
    if (done === pairs) progress.end()
  }
  await runTraining(
    'gate',
    options,
    (device, pairs, run) =>
      trainGate(device, pairs, heads, { ...run, hidden, layers, temperature, logitScale, onRewards }),
    { '--heads': options.heads },
  )
}
