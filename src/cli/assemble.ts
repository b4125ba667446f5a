// pinball assemble: joins heads and a backbone into one model directory.
import { copyFile, mkdir, readdir, rename, rm, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { openDirectory, writeFileAtomic } from '../files/disk.ts'
import { parseJsonObject, printable } from '../files/json.ts'
import { closeTensors, openModelTensors } from '../files/safetensors.ts'
import { readText } from '../files/source.ts'
import { parseLlamaConfig } from '../llama/config.ts'
import { readCheckpoint } from '../reward/checkpoint.ts'
import { encodeCheckpoint } from '../reward/encode.ts'
import { fileName, parseOut } from './options.ts'
import { print, printJson } from './output.ts'

interface AssembleCommand {
  readonly backbone: string
  readonly heads: string
  readonly out: string
  readonly json?: boolean
}

const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja', 'special_tokens_map.json']

const EXAMPLES = `
--heads is a directory as "pinball gate" and "pinball bradley-terry" write it; what it has of a calibration goes along. The directory
--out loads with "pinball score --model", and its safetensors in Python. Settings of pinball.json that only the backbone's directory
has (BOS policy, pattern of the gate, lambda) are taken over from there.

Examples:
  $ pinball assemble --backbone ./Llama-3-8B --heads reward --out ./my-reward-model
  $ pinball score --model ./my-reward-model --prompt "How was the film?" --response "A delight."
`

/** Adds the command to the program. */
export function addAssemble(program: Command): void {
  const folder = (option: string) => fileName(option, 'directory')
  program
    .command('assemble')
    .description('join heads and a backbone into one model directory')
    .requiredOption('--backbone <dir>', 'model directory with the backbone and the tokenizer', folder('--backbone'))
    .requiredOption('--heads <dir>', 'directory with the heads', folder('--heads'))
    .requiredOption('--out <dir>', 'directory to make; must be missing or empty', parseOut)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async (options: AssembleCommand) => assemble(options))
}

async function assemble({ backbone, heads, out, json }: AssembleCommand): Promise<void> {
  const start = performance.now()
  const from = await openDirectory(backbone)
  const checkpoint = await readCheckpoint(await openDirectory(heads))
  const where = `${backbone}/config.json`
  const text = await readText(from, 'config.json')
  if (text === null) throw new Error(`${where}: is missing; a model directory needs it`)
  const config = parseJsonObject(text, where)
  const { hidden } = parseLlamaConfig(config, where)
  if (hidden !== checkpoint.config.hidden_size) {
    throw new Error(
      `${heads}: heads must be for states of ${hidden} columns, as ${backbone} gives them, got ${checkpoint.config.hidden_size}`,
    )
  }
  if ((await readdir(out).catch(() => [])).length > 0)
    throw new Error(`${out}: must be missing or empty; choose another --out`)
  // Everything is made beside it and gets its name at the end: a kill leaves nothing that looks like a model.
  const partial = `${out.replace(/[\\/]+$/, '')}.partial`
  await rm(partial, { recursive: true, force: true })
  await mkdir(partial, { recursive: true })
  const own = parseJsonObject((await readText(from, 'pinball.json')) ?? '{}', `${backbone}/pinball.json`)
  const manifest = await manifestOf(heads, own, checkpoint)
  const tensors = await openModelTensors(from)
  const files: string[] = []
  try {
    const headConfig = Object.fromEntries(Object.entries(checkpoint.config).filter(([key]) => !(key in config)))
    const whole = { ...checkpoint, config: { ...config, ...headConfig }, manifest }
    for await (const { file, chunks } of encodeCheckpoint(whole, tensors)) {
      await writeFileAtomic(join(partial, file), chunks)
      files.push(file)
    }
  } finally {
    await closeTensors(tensors)
  }
  for (const file of TOKENIZER_FILES) {
    const path = join(backbone, file)
    if (!(await stat(path).catch(() => null))) continue
    await copyFile(path, join(partial, file))
    files.push(file)
  }
  await rmdir(out).catch(() => {})
  await rename(partial, out)
  if (json) return printJson({ out, layout: checkpoint.layout, files, ms: performance.now() - start })
  await print(`${printable(out)}: ${checkpoint.layout} model of ${files.length} files\n`)
}

/** The heads' manifest, with what only the backbone's says. */
async function manifestOf(
  heads: string,
  own: Record<string, unknown>,
  { manifest }: Awaited<ReturnType<typeof readCheckpoint>>,
) {
  const said = parseJsonObject(
    (await readText(await openDirectory(heads), 'pinball.json')) ?? '{}',
    `${heads}/pinball.json`,
  )
  const taken: Record<string, unknown> = {}
  for (const [key, field] of [
    ['bos', 'bos'],
    ['gate_pattern', 'gatePattern'],
    ['lambda', 'lambda'],
  ]) {
    if (!(key in said) && key in own) taken[field] = own[key]
  }
  return { ...manifest, ...taken }
}
