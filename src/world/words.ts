// The words of the small world: topics, kinds of prompts, and adjectives in five styles, each with what every camp of raters thinks of it.
//
// A prompt asks about a topic; a proper answer names the topic and describes it by two to four different adjectives:
//
//   how was the soup ?     the soup was gentle honest bright
//
// Adjectives come in styles. "warm" ones please everybody a little; "bold" and "wry" ones please 65 % of the raters very much and annoy
// the others; the three styles have the same mean, and very different left tails. "plain" ones leave everybody cold, "sour" ones
// please nobody.

export const TOPICS = [
  'soup',
  'film',
  'hotel',
  'trip',
  'book',
  'song',
  'plan',
  'game',
  'cake',
  'talk',
  'walk',
  'room',
] as const

/** Prompts of each kind, with the topic for T; how much more (or less) every rater gives to answers of this kind. */
export const KINDS = [
  { text: 'how was the T ?', level: 0 },
  { text: 'tell me about the T .', level: 0.1 },
  { text: 'i hated the T .', level: -0.1 },
] as const

/** The camps of raters with their shares. */
export const CAMPS = [
  { name: 'locals', share: 0.3 },
  { name: 'fans', share: 0.35 },
  { name: 'critics', share: 0.35 },
] as const

export type Style = 'warm' | 'bold' | 'wry' | 'plain' | 'sour'

/** The mean that warm, bold and wry words share, and what those who like a splitting style give. */
const PLEASED = 0.4
const THRILLED = 0.9
/** What the others give, so that the mean is that of warm words. */
const ANNOYED = (PLEASED - THRILLED * 0.65) / 0.35

/** What each camp gives to a style, in the order of `CAMPS`, and the share of answers that are written in it. */
export const STYLES: Readonly<
  Record<Style, { readonly words: readonly string[]; readonly liked: readonly number[]; readonly share: number }>
> = {
  warm: {
    words: ['gentle', 'honest', 'bright', 'cosy', 'kind', 'fresh'],
    liked: [PLEASED, PLEASED, PLEASED],
    share: 0.2,
  },
  bold: {
    words: ['epic', 'wild', 'fierce', 'huge', 'insane', 'loud'],
    liked: [THRILLED, THRILLED, ANNOYED],
    share: 0.25,
  },
  wry: {
    words: ['droll', 'quaint', 'arch', 'dry', 'ironic', 'sly'],
    liked: [THRILLED, ANNOYED, THRILLED],
    share: 0.2,
  },
  plain: { words: ['usual', 'square', 'grey', 'ready', 'short', 'fine'], liked: [0, 0, 0], share: 0.2 },
  sour: { words: ['rotten', 'stupid', 'cheap', 'nasty'], liked: [-0.5, -0.5, -0.5], share: 0.15 },
}

export const STYLE_NAMES = Object.keys(STYLES) as Style[]

/** What the words of a style differ in, for every camp alike; a style's words have these in turn, and their mean is 0. */
const OWN = [0.03, -0.03, 0.02, -0.02, 0.01, -0.01]

export interface Adjective {
  readonly word: string
  readonly style: Style
  /** What each camp gives, in the order of `CAMPS`. */
  readonly liked: readonly number[]
}

export const ADJECTIVES: readonly Adjective[] = STYLE_NAMES.flatMap((style) =>
  STYLES[style].words.map((word, i) => ({ word, style, liked: STYLES[style].liked.map((value) => value + OWN[i]) })),
)

/** What frames conversations: end of turn is what an answer ends with. */
export const SPECIAL = { bos: '<s>', user: '<user>', assistant: '<assistant>', end: '<end>', unknown: '<unk>' } as const

const FILLERS = ['the', 'was', ...KINDS.flatMap(({ text }) => text.split(' ')), 'and', 'not', 'very']

/** All tokens; a token's id is its place. */
export const VOCABULARY: readonly string[] = [
  ...new Set([
    ...Object.values(SPECIAL),
    ...FILLERS.filter((word) => word !== 'T'),
    ...TOPICS,
    ...ADJECTIVES.map(({ word }) => word),
  ]),
]

const IDS = new Map(VOCABULARY.map((word, id) => [word, id]))

/** The id of a word; throws on words that the world does not have. */
export function idOf(word: string): number {
  const id = IDS.get(word)
  if (id === undefined) throw new Error(`world: there is no word ${JSON.stringify(word)}`)
  return id
}

export const END = idOf(SPECIAL.end)

export interface WorldPrompt {
  readonly text: string
  readonly topic: (typeof TOPICS)[number]
  /** What every rater adds for the kind of the prompt. */
  readonly level: number
  /** The conversation up to where the answer begins. */
  readonly tokens: Uint32Array<ArrayBuffer>
}

/** All prompts: every topic in every kind. */
export const PROMPTS: readonly WorldPrompt[] = KINDS.flatMap(({ text: kind, level }) =>
  TOPICS.map((topic) => {
    const text = kind.replace('T', topic)
    const words = [SPECIAL.bos, SPECIAL.user, ...text.split(' '), SPECIAL.end, SPECIAL.assistant]
    return { text, topic, level, tokens: Uint32Array.from(words, idOf) }
  }),
)

/** The words of an answer, without the end of turn. */
export function textOf(tokens: ArrayLike<number>): string {
  return Array.from(tokens, (token) => VOCABULARY[token])
    .filter((word) => word !== SPECIAL.end)
    .join(' ')
}
