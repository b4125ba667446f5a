// pinball assemble: joins heads and a backbone into one model directory.
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Command } from 'commander'
import { directoryStore, openDirectory } from '../../files/disk.ts'
import { printable } from '../../files/json.ts'
import { leftOutNote } from '../../report/heads.ts'
import { assemble } from '../../reward/assemble.ts'
import type { FixedWeights } from '../../reward/manifest.ts'
import { claimOutputs } from '../claims.ts'
import { openHeads } from '../engine.ts'
import { fileName, parseFixedWeights, parseOut } from '../options.ts'
import { note, print, printJson } from '../output.ts'

interface AssembleCommand {
  readonly backbone: string
  readonly heads: string
  readonly out: string
  readonly weights?: FixedWeights
  readonly json?: boolean
}

const EXAMPLES = `
--heads is a directory as "pinball gate", "pinball bradley-terry" and "pinball fit --out DIR" write it, or a file of heads, whose attributes
have the same weight unless --weights says others; what it has of a calibration goes along. The directory
--out loads with "pinball score --model", and its safetensors in Python. Settings of pinball.json that only the backbone's directory
has (BOS policy, pattern of the gate, lambda) are taken over from there. What a crash leaves in --out, the same command mends.

Examples:
  $ pinball assemble --backbone ./Llama-3-8B --heads reward --out ./my-reward-model
  $ pinball assemble --backbone ./Llama-3-8B --heads heads.safetensors --weights helpful=0.7,kind=0.3 --out ./my-reward-model
  $ pinball score --model ./my-reward-model --prompt "How was the film?" --response "A delight."
`

/** Adds the command to the program. */
export function addAssemble(program: Command): void {
  const folder = (option: string) => fileName(option, 'directory')
  program
    .command('assemble')
    .description('join heads and a backbone into one model directory')
    .requiredOption('--backbone <dir>', 'model directory with the backbone and the tokenizer', folder('--backbone'))
    .requiredOption('--heads <path>', 'heads: a directory, or a file', fileName('--heads', 'file or directory'))
    .requiredOption('--out <dir>', 'directory to make; must be missing or empty', parseOut)
    .option(
      '--weights <weights>',
      'of the attributes, for all rows: mean, or NAME=NUMBER with commas',
      parseFixedWeights,
    )
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: AssembleCommand) => run(options))
}

async function run({ backbone, heads, out, weights, json }: AssembleCommand): Promise<void> {
  const start = performance.now()
  const [from, its] = [await openDirectory(backbone), await openHeads(heads)]
  const folder = out.replace(/[\\/]+$/, '') || out
  await claimOutputs({ inputs: { '--backbone': backbone, '--heads': heads }, folders: { '--out': folder } })
  await mkdir(dirname(folder), { recursive: true })
  const { layout, files, leftOut } = await assemble(from, its, directoryStore(folder), { weights })
  if (leftOut.length > 0) note(`note: ${leftOutNote(leftOut, backbone)}`)
  if (json) return printJson({ out, layout, files, left_out: leftOut, ms: performance.now() - start })
  await print(`${printable(out)}: ${layout} model of ${files.length} files\n`)
}
