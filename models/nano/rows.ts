// Rows of the embedded model's data: read from the openly licensed sets, split by item, rated on one scale, as files for the commands.
//
// Every item goes to one of three parts by a hash of its text alone, never of its ratings; data.py, which makes the backbone, does it
// alike, letter for letter:
//   heldout   20 %   seen by nothing that is trained
//   heads     30 %   its ratings are for heads and gate alone; a fifth of it is for the conformal calibration instead
//   backbone  50 %   its text and ratings shape the backbone; nothing else is fitted on it
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import type { Message } from '../../src/text/chat.ts'

export type Part = 'heldout' | 'heads' | 'backbone'

export interface Rated {
  readonly set: string
  /** What is hashed. */
  readonly key: string
  readonly part: Part
  readonly messages: readonly Message[]
  /** By attribute, one number a rater, in [0, 1]. */
  readonly ratings: Readonly<Record<string, readonly number[]>>
}

export interface Pair {
  /** helpful or harmless. */
  readonly set: string
  readonly key: string
  readonly part: Part
  readonly prompt: readonly Message[]
  readonly chosen: Message
  readonly rejected: Message
}

/** Lowest raw rating and number of levels: a raw rating r becomes (r - lowest + 0.5) / levels. */
const SCALES: Readonly<Record<string, readonly [number, number]>> = {
  sentiment: [-4, 9],
  valence: [1, 5],
  arousal: [1, 5],
  dominance: [1, 5],
  interesting: [0, 3],
  engaging: [0, 3],
  specific: [0, 3],
  relevant: [0, 3],
  overall: [0, 5],
  helpful: [0, 2],
  harmless: [0, 2],
}
/** The length of a response, as a rating: what debiasing takes out of the others. */
export const VERBOSITY = 'verbosity'
export const ATTRIBUTES: readonly string[] = [...Object.keys(SCALES), VERBOSITY]

const PROMPTS: Readonly<Record<string, readonly string[]>> = {
  movie: [
    'Write a sentence from a movie review.',
    'Say something about a film you saw.',
    'Give me one line of a film review.',
  ],
  amazon: [
    'Write a sentence from a product review.',
    'Say something about a product you bought.',
    'Give me one line of a customer review.',
  ],
  nyt: [
    'Write a sentence from a newspaper editorial.',
    'Say something about the news.',
    'Give me one line of an opinion column.',
  ],
  emobank: ['Write a sentence.', 'Say something.', 'Give me one line of a text.'],
}

/** A number in [0, 1) that depends on the letters and digits of a text and nothing else. */
export function fraction(text: string): number {
  const key =
    text
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_]+/gu, ' ')
      .trim() || text
  return Number(createHash('sha256').update(key).digest().readBigUInt64BE()) / 2 ** 64
}

export function partOf(key: string): Part {
  const f = fraction(key)
  return f < 0.2 ? 'heldout' : f < 0.5 ? 'heads' : 'backbone'
}

/** The fifth of the heads part on which quantiles are calibrated. */
export const isCalibration = (key: string): boolean => fraction(`calibration of ${key}`) < 0.2

const scaled = (attribute: string, raw: number): number => {
  const [low, count] = SCALES[attribute]
  return Number(((raw - low + 0.5) / count).toFixed(6))
}

function rowsOf<T>(folder: string, name: string): T[] {
  const path = join(folder, name)
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch {
    throw new Error(
      `${path}: is missing; --data must be the folder with vader-multirater, emobank, fed-dialogue and hh-rlhf-test`,
    )
  }
  const text = new TextDecoder().decode(gunzipSync(bytes))
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T)
}

const said = (role: string, content: string): Message => ({ role, content: content.trim() })

function sentence(set: string, text: string, ratings: Rated['ratings']): Rated {
  const prompts = PROMPTS[set]
  const prompt = prompts[Math.floor(fraction(`prompt of ${text}`) * prompts.length)]
  return { set, key: text, part: partOf(text), messages: [said('user', prompt), said('assistant', text)], ratings }
}

/** Sentences with 15 to 99 raters each. */
function vader(folder: string): Rated[] {
  const files = { movie: 'movie_reviews', amazon: 'amazon_reviews', nyt: 'nyt_editorials' }
  return Object.entries(files).flatMap(([set, name]) =>
    rowsOf<{ text: string; ratings: number[] }>(folder, `vader-multirater/${name}.jsonl.gz`)
      .filter(({ text }) => text.trim() !== '')
      .map(({ text, ratings }) => sentence(set, text, { sentiment: ratings.map((raw) => scaled('sentiment', raw)) })),
  )
}

function emobank(folder: string): Rated[] {
  return rowsOf<{ text: string; vad: number[][] }>(folder, 'emobank/reader_ratings.jsonl.gz')
    .filter(({ text }) => text.trim() !== '')
    .map(({ text, vad }) => {
      const ratings = ['valence', 'arousal', 'dominance'].map((name, i) => [
        name,
        vad.map((raw) => scaled(name, raw[i])),
      ])
      return sentence('emobank', text, Object.fromEntries(ratings))
    })
}

/** 'User: ..' and 'System: ..' lines as messages; neighbours of one speaker are joined. */
function dialogue(text: string): Message[] {
  const messages: { role: string; content: string }[] = []
  for (const line of text.trim().split('\n')) {
    const colon = line.indexOf(':')
    const [speaker, words] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1)]
    const last = messages[messages.length - 1]
    if (speaker !== 'User' && speaker !== 'System') {
      last.content += `\n${line}`
      continue
    }
    const role = speaker === 'User' ? 'user' : 'assistant'
    if (last?.role === role) last.content += `\n${words.trim()}`
    else messages.push({ ...said(role, words) })
  }
  return messages
}

function commonPrefix(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)]
  let n = 0
  while (n < left.length && n < right.length && left[n] === right[n]) n++
  return n
}

/** System turns with five raters, split by dialogue; all that is not held out is for the heads, as 375 turns are few. */
function fed(folder: string): Rated[] {
  const rows = rowsOf<{ context: string; response?: string; annotations: Record<string, unknown[]> }>(
    folder,
    'fed-dialogue/fed_data.jsonl.gz',
  )
  const dialogues = rows.filter(({ response }) => response === undefined).map(({ context }) => context)
  return rows.flatMap(({ context, response, annotations }) => {
    if (response === undefined) return []
    const text = `${context}\n${response}`
    let key = dialogues[0]
    let longest = -1
    for (const whole of dialogues) {
      const length = commonPrefix(whole, text)
      if (length > longest) [key, longest] = [whole, length]
    }
    const ratings: Record<string, number[]> = {}
    for (const [name, values] of Object.entries(annotations)) {
      const attribute = name.toLowerCase()
      if (!(attribute in SCALES)) continue
      // "N/A (...)" is written in place of a number by a few raters.
      ratings[attribute] = values.filter((v): v is number => typeof v === 'number').map((raw) => scaled(attribute, raw))
    }
    const part = partOf(key) === 'heldout' ? 'heldout' : 'heads'
    return [{ set: 'fed', key, part, messages: dialogue(text), ratings }]
  })
}

/** HH-RLHF's turns as messages, or null where speakers do not alternate. */
function conversation(text: string): Message[] | null {
  const pieces = text.split(/\n\n(Human|Assistant):/).slice(1)
  const messages: Message[] = []
  for (let i = 0; i + 1 < pieces.length; i += 2)
    messages.push(said(pieces[i] === 'Human' ? 'user' : 'assistant', pieces[i + 1]))
  const fine = messages.every(({ role, content }, i) => role === ['user', 'assistant'][i % 2] && content !== '')
  return fine && messages.length % 2 === 0 ? messages : null
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** Pairs whose sides differ in the last message only. The first human message is the key, so no dialogue is on both sides of a split. */
function hh(folder: string): Pair[] {
  const files = { 'helpful-base': 'helpful', 'helpful-rejection-sampled': 'helpful', 'harmless-base': 'harmless' }
  return Object.entries(files).flatMap(([name, set]) =>
    rowsOf<{ chosen: string; rejected: string }>(folder, `hh-rlhf-test/${name}.test.jsonl.gz`).flatMap((row) => {
      const [chosen, rejected] = [conversation(row.chosen), conversation(row.rejected)]
      if (!chosen?.length || !rejected?.length || same(chosen.at(-1), rejected.at(-1))) return []
      if (!same(chosen.slice(0, -1), rejected.slice(0, -1))) return []
      const key = chosen[0].content
      const [last, other] = [chosen.at(-1)!, rejected.at(-1)!]
      return [{ set, key, part: partOf(key), prompt: chosen.slice(0, -1), chosen: last, rejected: other }]
    }),
  )
}

export interface Data {
  readonly rated: readonly Rated[]
  readonly pairs: readonly Pair[]
}

/** All rated rows and pairs of the data folder. Throws where a set is missing. */
export function readData(folder: string): Data {
  return { rated: [...vader(folder), ...emobank(folder), ...fed(folder)], pairs: hh(folder) }
}

/** The two sides of a pair as rated rows: one person chose (1) one and left (0) the other, on a scale of two levels. */
export function sidesOf({ set, key, part, prompt, chosen, rejected }: Pair): Rated[] {
  return [chosen, rejected].map((message, i) => ({
    set: `hh-${set}`,
    key,
    part,
    messages: [...prompt, message],
    ratings: { [set]: [scaled(set, 1 - i)] },
  }))
}

/** The length of a response in words on a scale from 0 (none) to 1 (512 and more), by the logarithm. */
export function verbosity(response: string): number {
  const words = response.split(/\s+/).filter(Boolean).length
  return Number(Math.min(1, Math.log1p(words) / Math.log1p(512)).toFixed(6))
}
