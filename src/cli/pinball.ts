// The command `pinball`: parses arguments, calls the library, prints. Errors are one line on standard error.
import { Command, CommanderError } from 'commander'
import about from '../../package.json' with { type: 'json' }
import { discardUnfinished } from '../files/disk.ts'
import { printable } from '../files/json.ts'
import { messageOf } from '../files/system_errors.ts'
import { addData } from './data.ts'
import { addDevices } from './devices.ts'
import { addEval } from './eval/eval.ts'
import { EXIT } from './exit_codes.ts'
import { addFeatures } from './features/features.ts'
import { addFit } from './fit/fit.ts'
import { addRidge } from './fit/ridge.ts'
import { addGenerate } from './generate.ts'
import { addAssemble } from './heads/assemble.ts'
import { addCalibrate } from './heads/calibrate.ts'
import { addDebias } from './heads/debias.ts'
import { addMerge } from './merge.ts'
import { addReproduce } from './reproduce.ts'
import { addScore } from './score/score.ts'
import { addStart } from './score/start.ts'
import { handleSignals } from './signals.ts'
import { addSplit } from './split.ts'
import { addBradleyTerry } from './train/bradley_terry.ts'
import { addGate } from './train/gate.ts'
import { addRloo } from './train/rloo.ts'
import { addSft } from './train/sft.ts'
import { addTrain } from './train/train.ts'
import { addTrainRm } from './train/train_rm.ts'

const HELP = `
Exit codes: 0 done, 1 an error (one line on standard error), 2 wrong usage, 3 a fit missed its tolerance.

Examples:
  $ pinball start
  $ pinball score --prompt "How was the film?" --response "A delight."
  $ pinball score --input rows.jsonl --json
  $ pinball data rows --dataset attributes --out ratings.jsonl
  $ pinball features --input ratings.jsonl --labels helpful --out ratings.safetensors
  $ pinball fit --features ratings.safetensors --out heads.safetensors
  $ pinball gate --features pairs.safetensors --heads heads.safetensors --out reward
  $ pinball generate --prompt "How was the film?"
  $ pinball devices
`

// In the order of the help.
const COMMANDS = [
  addScore,
  addData,
  addTrain,
  addSplit,
  addFeatures,
  addFit,
  addRidge,
  addDebias,
  addGate,
  addBradleyTerry,
  addCalibrate,
  addAssemble,
  addSft,
  addTrainRm,
  addRloo,
  addMerge,
  addGenerate,
  addEval,
  addReproduce,
  addDevices,
  addStart,
]

function makeProgram(): Command {
  const program = new Command('pinball')
  program
    .description('Distributional (quantile) reward models on WebGPU and WebAssembly.')
    .version(about.version)
    .option('--debug', 'print the stack of an error')
    .exitOverride()
    .configureOutput({ outputError: () => {}, writeErr: () => {} })
    .configureHelp({ showGlobalOptions: true, helpWidth: 100 })
    .showSuggestionAfterError(true)
    .addHelpText('after', HELP)
  for (const add of COMMANDS) add(program)
  return program
}

/** Prints an error as one line and gives the exit code that goes with it. */
function fail(error: unknown, debug: boolean): number {
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done
  const noCommand = error instanceof CommanderError && error.code === 'commander.help'
  const message = noCommand ? 'a command is needed; see pinball --help' : messageOf(error)
  const line = message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ')
  process.stderr.write(`pinball: ${printable(line)}\n`)
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  return error instanceof CommanderError ? EXIT.usage : EXIT.error
}

async function main(): Promise<number> {
  handleSignals()
  const program = makeProgram()
  // Errors of threads and streams that nobody awaits.
  process.on('uncaughtException', (error) => process.exit(fail(error, program.opts().debug === true)))
  try {
    await program.parseAsync()
    return Number(process.exitCode ?? EXIT.done)
  } catch (error) {
    discardUnfinished()
    return fail(error, program.opts().debug === true)
  }
}

// Ends the process by hand: an idle thread or an adapter must not keep it alive.
main().then((code) => process.exit(code))
