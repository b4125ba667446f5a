// --reward of pinball rloo: a model directory, a module or an address, with a weight before it.
import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { InvalidArgumentError } from 'commander'
import { openDirectory, openFile } from '../../files/disk.ts'
import { digest } from '../../files/hash.ts'
import { shownUrl } from '../../files/http.ts'
import { printable } from '../../files/json.ts'
import type { RewardTarget } from '../../train/rloo/recipe.ts'
import { usageError } from '../options.ts'

/** A reward as it is given. */
export interface RewardOption {
  readonly weight: number
  /** A path, or an address. */
  readonly place: string
  readonly url: boolean
}

/** Parses a reward, of which there may be several: PLACE, or WEIGHT:PLACE. */
export function parseReward(text: string, before: readonly RewardOption[] = []): readonly RewardOption[] {
  const [, number, rest] = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?):(.*)$/i.exec(text) ?? []
  const place = rest ?? text
  const weight = number === undefined ? 1 : Number(number)
  if (place === '' || !Number.isFinite(weight) || weight === 0)
    throw new InvalidArgumentError(
      'Must be a directory, a module or an address, or WEIGHT: and one of them; no weight is 0.',
    )
  const url = /^https?:\/\//i.test(place)
  if (url && !URL.canParse(place)) throw new InvalidArgumentError('Must be an address that can be read.')
  return [...before, { weight, place, url }]
}

/** The reward as training.json has it: no password, no key. */
export const shownReward = ({ weight, place, url }: RewardOption): string =>
  `${weight}:${url ? shownUrl(place) : place}`

/** Opens the directory of a reward model, or loads a module. */
export async function openReward({ weight, place, url }: RewardOption): Promise<RewardTarget> {
  if (url) return { kind: 'url', weight, url: place }
  const shown = printable(place)
  const found = await stat(place).catch(() => usageError(`--reward: ${shown}: no such directory or module`))
  const name = basename(resolve(place))
  if (found.isDirectory()) {
    const files = await openDirectory(place)
    const names = (await files.list?.()) ?? []
    if (names.includes('adapter_config.json') && !names.includes('config.json'))
      usageError(`--reward: ${shown}: is an adapter; put it into its base by "pinball merge", or train it with --merge`)
    return { kind: 'model', weight, name, files }
  }
  const source = await openFile(place)
  try {
    const hash = await digest(await source.read(0, source.byteLength))
    const exported = (await import(pathToFileURL(resolve(place)).href)) as Readonly<Record<string, unknown>>
    return { kind: 'module', weight, name, exported, path: shown, hash }
  } catch (error) {
    throw new Error(`${shown}: cannot be loaded as a module: ${(error as Error)?.message ?? error}`, { cause: error })
  } finally {
    await source.close()
  }
}
