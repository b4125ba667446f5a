// The truth of the small world: the distribution of the ratings that any answer gets, whatever its tokens are, in closed form.
//
// A rater of camp c gives an answer y to a prompt x a rating that is normal with mean m_c(x, y) and deviation SPREAD; so the ratings of an
// answer are a mixture of three normal distributions with the shares of the camps:
//
//   m_c = level of the prompt + mean over y's adjectives of what c gives for them - faults of y
//
// Faults annoy everybody alike: an adjective that is there already, fewer than two or more than four adjectives, the topic of the prompt
// not named, another topic named, each token that has no place in "the TOPIC was ADJECTIVE ...", an answer that does not end.
import { randomBits } from '../data/random.ts'
import { normalBelow, normalQuantile } from '../evaluate/normal.ts'
import { ADJECTIVES, CAMPS, END, idOf, TOPICS, VOCABULARY, type WorldPrompt } from './words.ts'

/** Deviation of the ratings within a camp. */
export const SPREAD = 0.15

/** What each fault takes from the rating. */
export const FAULTS = {
  repeated: 0.15,
  tooFew: 0.2,
  tooMany: 0.1,
  topicMissing: 0.2,
  otherTopic: 0.2,
  stray: 0.1,
  endless: 0.3,
} as const

/** All faults together take at most this. */
export const WORST = 1.2

/** A mixture of normal distributions of the deviation `SPREAD`, with the shares of the camps. */
export interface TrueRatings {
  /** Mean of each camp, in the order of `CAMPS`. */
  readonly means: readonly number[]
}

const BY_TOKEN = VOCABULARY.map((word) => ADJECTIVES.find((adjective) => adjective.word === word) ?? null)
const TOPIC_TOKENS = new Set(TOPICS.map(idOf))
const OPENING = [idOf('the'), null, idOf('was')]

type Asked = Pick<WorldPrompt, 'topic' | 'level'>

/** The ratings of an answer: its tokens from the first after the prompt on, the end of turn included where there is one. */
export function trueRatings({ topic, level }: Asked, answer: ArrayLike<number>): TrueRatings {
  const { tokens, endless } = cut(answer)
  const adjectives = tokens.flatMap((token) => BY_TOKEN[token] ?? [])
  const fault = faults(tokens, idOf(topic), endless)
  return {
    means: CAMPS.map((_, c) => {
      const liked = adjectives.reduce((sum, adjective) => sum + adjective.liked[c], 0)
      return level + liked / Math.max(1, adjectives.length) - fault
    }),
  }
}

/** What an answer's faults take from its ratings. */
export function trueFault({ topic }: Asked, answer: ArrayLike<number>): number {
  const { tokens, endless } = cut(answer)
  return faults(tokens, idOf(topic), endless)
}

/** The tokens before the end of turn; whatever comes after it is no part of the answer. */
function cut(answer: ArrayLike<number>): { readonly tokens: number[]; readonly endless: boolean } {
  const all = Array.from(answer)
  const end = all.indexOf(END)
  return end < 0 ? { tokens: all, endless: true } : { tokens: all.slice(0, end), endless: false }
}

function faults(tokens: readonly number[], topic: number, endless: boolean): number {
  const adjectives = tokens.filter((token) => BY_TOKEN[token])
  const count = adjectives.length
  // Where the answer has the form, its first three tokens are in place, and so is every adjective after them.
  const strays = tokens.filter((token, i) =>
    i < OPENING.length ? (OPENING[i] === null ? !TOPIC_TOKENS.has(token) : token !== OPENING[i]) : !BY_TOKEN[token],
  ).length
  const sum =
    FAULTS.repeated * (count - new Set(adjectives).size) +
    FAULTS.tooFew * Math.max(0, 2 - count) +
    FAULTS.tooMany * Math.max(0, count - 4) +
    (tokens.includes(topic) ? 0 : FAULTS.topicMissing) +
    (tokens.some((token) => token !== topic && TOPIC_TOKENS.has(token)) ? FAULTS.otherTopic : 0) +
    FAULTS.stray * strays +
    (endless ? FAULTS.endless : 0)
  return Math.min(WORST, sum)
}

/** The expected rating. */
export function trueMean({ means }: TrueRatings): number {
  return means.reduce((sum, mean, c) => sum + CAMPS[c].share * mean, 0)
}

/** P(rating <= value). */
export function trueBelow({ means }: TrueRatings, value: number): number {
  return means.reduce((sum, mean, c) => sum + CAMPS[c].share * normalBelow((value - mean) / SPREAD), 0)
}

/** Density of the ratings at a value. */
export function trueDensity({ means }: TrueRatings, value: number): number {
  const normal = (z: number) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)
  return means.reduce((sum, mean, c) => sum + (CAMPS[c].share * normal((value - mean) / SPREAD)) / SPREAD, 0)
}

/** The rating that a share `level` of all is at or below, 0 < level < 1; good to 1e-9. */
export function trueQuantile(ratings: TrueRatings, level: number): number {
  let low = Math.min(...ratings.means) - 9 * SPREAD
  let high = Math.max(...ratings.means) + 9 * SPREAD
  while (high - low > 1e-9) {
    const middle = (low + high) / 2
    if (trueBelow(ratings, middle) < level) low = middle
    else high = middle
  }
  return (low + high) / 2
}

/** E[-exp(-lambda rating)]: the paper's utility of the whole distribution. */
export function trueUtility({ means }: TrueRatings, lambda: number): number {
  const half = (lambda * SPREAD) ** 2 / 2
  return -means.reduce((sum, mean, c) => sum + CAMPS[c].share * Math.exp(half - lambda * mean), 0)
}

const CAMP_STREAM = 1
const RATING_STREAM = 2

/** Ratings of an answer by simulated raters, one for each counter; rater i depends on (seed, i) alone. */
export function simulateRating({ means }: TrueRatings, seed: number, counter: number): number {
  let share = randomBits(seed, CAMP_STREAM, counter) / 2 ** 32
  let camp = 0
  while (camp < CAMPS.length - 1 && share >= CAMPS[camp].share) share -= CAMPS[camp++].share
  return means[camp] + SPREAD * normalQuantile((randomBits(seed, RATING_STREAM, counter) + 0.5) / 2 ** 32)
}
