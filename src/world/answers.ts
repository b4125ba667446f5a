// Seeded answers of the small world, as its people write them: what the policy is fine-tuned on, and what raters are asked about.
import { randomBits } from '../data/random.ts'
import { END, idOf, PROMPTS, STYLE_NAMES, STYLES, type Style, TOPICS, type WorldPrompt } from './words.ts'

export interface WrittenAnswer {
  readonly prompt: WorldPrompt
  /** The end of turn included, where the answer has one. */
  readonly tokens: Uint32Array<ArrayBuffer>
}

/** A choice between adjectives of the answer's own style and of any. */
const FAITHFUL = 0.75
/** Stream of the answers' draws: one counter for each draw, this many for an answer. */
const STREAM = 3
const DRAWS = 64

/**
 * Writes answer number i: a prompt, a style, two to four adjectives, most of that style. A share `careless` of the answers has faults:
 * a repeated word, a wrong topic, no end.
 */
export function writeAnswer(seed: number, index: number, careless: number): WrittenAnswer {
  let at = index * DRAWS
  const next = (): number => randomBits(seed, STREAM, at++) / 2 ** 32
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]
  const prompt = pick(PROMPTS)
  const style = drawStyle(next())
  const sloppy = next() < careless
  const words: string[] = []
  const count = 2 + Math.floor(next() * 3)
  while (words.length < count) {
    const word = pick(STYLES[next() < FAITHFUL ? style : pick(STYLE_NAMES)].words)
    if (!words.includes(word)) words.push(word)
  }
  let topic: string = prompt.topic
  let ends = true
  if (sloppy) {
    const fault = Math.floor(next() * 4)
    if (fault === 0) words.push(pick(words))
    if (fault === 1) words.splice(1)
    if (fault === 2) topic = pick(TOPICS)
    if (fault === 3) ends = false
  }
  const tokens = ['the', topic, 'was', ...words].map(idOf)
  return { prompt, tokens: Uint32Array.from(ends ? [...tokens, END] : tokens) }
}

function drawStyle(draw: number): Style {
  let rest = draw
  for (const style of STYLE_NAMES) {
    rest -= STYLES[style].share
    if (rest < 0) return style
  }
  return STYLE_NAMES[STYLE_NAMES.length - 1]
}

/** Answers 0 to count - 1. */
export function writeAnswers(seed: number, count: number, careless: number): WrittenAnswer[] {
  return Array.from({ length: count }, (_, i) => writeAnswer(seed, i, careless))
}
