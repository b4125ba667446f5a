// Options that several commands share, how their values are checked, and where the embedded model is.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { DEVICE_KINDS, type DeviceKind } from '../device/open.ts'
import { decimal } from '../files/decimal.ts'
import { show } from '../files/json.ts'
import { evenLevels, type Mixture } from '../reward/distribution.ts'
import type { HeadOptions } from '../reward/heads.ts'
import { type FixedWeights, isName, type Rewards } from '../reward/manifest.ts'
import { UNITS, USUAL_UNIT } from '../reward/unit.ts'
import { EXIT } from './exit_codes.ts'

/** What `deviceOptions` add to a command. */
export interface DeviceChoice {
  /** A model directory; undefined means the embedded model. */
  readonly model?: string
  readonly device: DeviceKind
  readonly threads?: number
}

/** What `adapterOption` and `headsOption` add to that. */
export interface ModelChoice extends DeviceChoice {
  /** A directory with an adapter. */
  readonly adapter?: string
  /** A file or a directory with heads. */
  readonly heads?: string
}

/** Name under which the embedded model is shown: its folder in the package. */
export const EMBEDDED = 'models/nano'

/** Adds --model, --device and --threads. */
export function deviceOptions(command: Command): Command {
  return computeOptions(
    command.option('--model <dir>', `model directory (default: the embedded ${EMBEDDED})`, parseModel),
  )
}

/** Adds --adapter. */
export function adapterOption(command: Command): Command {
  return command.option('--adapter <dir>', 'a LoRA adapter over the model', fileName('--adapter', 'directory'))
}

/** Adds --heads. */
export function headsOption(command: Command): Command {
  const parse = fileName('--heads', 'file or directory')
  return command.option(
    '--heads <path>',
    "heads for the model's backbone, in the place of its own: a file or a directory",
    parse,
  )
}

/** Adds --device, with its default, and --threads. */
export function computeOptions(command: Command, device: DeviceKind = 'auto'): Command {
  return command
    .addOption(new Option('--device <device>', 'where to compute').choices([...DEVICE_KINDS]).default(device))
    .option('--threads <n>', 'threads of the wasm device (default: all cores)', wholeNumber(1, 64))
}

/** What `headOptions` adds to a command. */
export interface HeadChoice {
  readonly mixture?: Mixture
  readonly rewards?: Rewards
  readonly debias: boolean
  readonly calibration: boolean
  readonly weights?: FixedWeights
}

/** Adds the switches for what checkpoints do in different ways. */
export function headOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--mixture <mixture>', "sum or mean over the attributes (default: the model's)").choices([
        'sum',
        'mean',
      ]),
    )
    .addOption(
      new Option('--rewards <rewards>', "values that attributes show (default: the model's)").choices([
        'debiased',
        'raw',
      ]),
    )
    .option('--no-debias', 'leave the transform matrix out')
    .option('--no-calibration', 'leave the conformal calibration out')
    .option(
      '--weights <weights>',
      'fixed weights instead of the gate: mean, or NAME=NUMBER with commas',
      parseFixedWeights,
    )
}

/** What the switches say, as the library takes it. */
export function chosenHeads({ mixture, rewards, debias, calibration, weights }: HeadChoice): HeadOptions {
  return { mixture, rewards, debias, calibration, weights }
}

/** Adds --unit. */
export function unitOption(command: Command): Command {
  return command.addOption(
    new Option('--unit <unit>', 'what counts once where items have several ratings: the item, or each rating')
      .choices([...UNITS])
      .default(USUAL_UNIT),
  )
}

/** Adds --max-length and --skip-invalid. */
export function limitOptions(command: Command): Command {
  return command
    .option('--max-length <tokens>', 'longest row (default: what the model takes)', wholeNumber(1, 2 ** 31))
    .option('--skip-invalid', 'leave out rows that are too long or not valid, and say which')
}

/** Adds --no-share. */
export function shareOption(command: Command): Command {
  return command.option('--no-share', 'compute beginnings that rows have in common again for every row')
}

/** Parses --weights of attributes. */
export function parseFixedWeights(text: string): FixedWeights {
  if (text === 'mean') return text
  const weights: Record<string, number> = {}
  for (const part of text.split(',')) {
    const [, name, value] = /^(.+)=([^=]+)$/.exec(part.trim()) ?? []
    if (name === undefined || !Number.isFinite(decimal(value))) {
      throw new InvalidArgumentError('Must be mean, or NAME=NUMBER with commas.')
    }
    weights[name] = decimal(value)
  }
  return weights
}

/** Ends the command as wrong usage: exit code 2. */
export function usageError(message: string): never {
  throw new CommanderError(EXIT.usage, 'pinball.usage', message)
}

/** Does what an option asks for; what it throws is wrong usage of the option. */
export function checkOption<T>(option: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    return usageError(`${option}: ${(error as Error).message}`)
  }
}

/** Makes a parser of names of files and directories, which must not be empty; `what` is for the error. */
export function fileName(option: string, what: string): (text: string) => string {
  return (text) => (text === '' ? usageError(`${option}: must be a ${what}, got ""`) : text)
}

const parseModel = fileName('--model', 'directory')
/** Parses --input of rows. */
export const parseInput = fileName('--input', 'file name or -')
/** Parses --input of rows, of which there may be several. */
export function parseInputs(text: string, before: string[] = []): string[] {
  return [...before, parseInput(text)]
}
const parseFeatureFile = fileName('--features', 'file name')
/** Parses --features, of which there may be several. */
export function parseFeatures(text: string, before: string[] = []): string[] {
  return [...before, parseFeatureFile(text)]
}
/** Parses --labels of a fit. */
export const parseLabels = fileName('--labels', 'list of names or a file name')
/** Parses --weights. */
export const parseWeights = fileName('--weights', 'column or file name')
/** Parses --label-rows. */
export const parseLabelRows = fileName('--label-rows', 'file name')

/** Parses --alpha: a penalty, or `auto`. */
export function parseAlpha(text: string): number | 'auto' {
  return text === 'auto' ? text : realNumber((alpha) => alpha >= 0 && alpha < Infinity, 'of at least 0')(text)
}

/** Parses --out: a file name; standard output is for people. */
export function parseOut(text: string): string {
  if (text === '' || text === '-') usageError(`--out: must be a file name, got "${text}"`)
  return text
}

/** The folder of the embedded model, beside dist/ in the package and beside src/ in the repository. */
export function embeddedModel(): string {
  for (const path of ['../models/nano', '../../models/nano']) {
    const folder = fileURLToPath(new URL(path, import.meta.url))
    if (existsSync(folder)) return folder
  }
  throw new Error(`${EMBEDDED}: the embedded model is not in this installation; give --model`)
}

/** Makes a parser of whole numbers in [low, high]. */
export function wholeNumber(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = decimal(text)
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`Must be a whole number from ${low} to ${high}.`)
    }
    return value
  }
}

/** Makes a parser of numbers with a condition, which `range` says in words. */
export function realNumber(fits: (value: number) => boolean, range: string): (text: string) => number {
  return (text) => {
    const value = decimal(text)
    if (!fits(value)) throw new InvalidArgumentError(`Must be a number ${range}.`)
    return value
  }
}

/** Parses numbers above 0. */
export const positive = realNumber((value) => value > 0 && value < Infinity, 'above 0')

/** Parses --lambda: finite, 0 or more. */
export const parseLambda = realNumber((value) => value >= 0 && value < Infinity, 'of at least 0')

// More levels than this say nothing new and cost one fit each.
const LEVEL_LIMIT = 1000

/**
 * Parses --levels: a whole number K means the levels k / (K + 1); a number between 0 and 1 or a list of them means just those,
 * which must increase.
 */
export function parseLevels(text: string): number[] {
  const values = text.split(',').map(decimal)
  if (values.length === 1 && Number.isInteger(values[0]) && values[0] >= 1) {
    if (values[0] > LEVEL_LIMIT) throw new InvalidArgumentError(`At most ${LEVEL_LIMIT} levels.`)
    return evenLevels(values[0])
  }
  if (values.length > LEVEL_LIMIT) throw new InvalidArgumentError(`At most ${LEVEL_LIMIT} levels.`)
  for (const [k, value] of values.entries()) {
    if (!(value > 0 && value < 1)) {
      throw new InvalidArgumentError('Must be a number of levels, or levels between 0 and 1 with commas.')
    }
    if (k > 0 && value <= values[k - 1]) throw new InvalidArgumentError('Levels must increase.')
  }
  return values
}

/** Parses --labels: names with commas, none twice. */
export function parseNames(text: string): string[] {
  const names = text.split(',').map((name) => name.trim())
  if (names.includes('')) throw new InvalidArgumentError('Must be names with commas, none empty.')
  const bad = names.find((name) => !isName(name))
  if (bad !== undefined) throw new InvalidArgumentError(`${show(bad)} has control characters.`)
  const seen = new Set<string>()
  const twice = names.find((name) => seen.size === seen.add(name).size)
  if (twice !== undefined) throw new InvalidArgumentError(`${show(twice)} is there twice.`)
  return names
}
