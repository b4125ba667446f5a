// What `pinball generate` shows: documents, texts for people, and how a choice among samples moves the reward.
import type { TailMeasure } from '../evaluate/left_tail.ts'
import { printable } from '../files/json.ts'
import type { RankedTexts } from '../generate/best_of.ts'
import type { GeneratedText } from '../generate/texts.ts'
import type { RewardModel } from '../reward/model.ts'
import type { ScoreKind } from '../reward/scoring.ts'
import { counted, figure, snippet, table } from './draw.ts'
import { timeLeft } from './progress.ts'

const PROMPT_CHARACTERS = 80

/** What wrote the texts. */
export interface Writing {
  readonly model: { readonly name: string }
  /** The adapter that the model is under. */
  readonly adapter?: string
  readonly device: { readonly name: string }
  /** Whether an interrupt ended the work before all texts were there. */
  readonly interrupted: boolean
}

/** The document of `generate --json`. */
export function generationDocument(writing: Writing, texts: readonly GeneratedText[]): Record<string, unknown> {
  return { ...headOf(writing), results: texts.map(resultOf) }
}

function headOf({ model, adapter, device, interrupted }: Writing): Record<string, unknown> {
  return {
    model: model.name,
    ...(adapter !== undefined && { adapter }),
    device: device.name,
    ...(interrupted && { interrupted }),
  }
}

function resultOf({ row, id, prompt, text, tokens, logprobs, finishReason }: GeneratedText): Record<string, unknown> {
  return {
    ...{ id: id ?? row, prompt, text },
    tokens: Array.from(tokens),
    logprobs: Array.from(logprobs),
    finish_reason: finishReason,
  }
}

/** What ranked the texts. */
export interface Ranking {
  readonly n: number
  readonly rank: ScoreKind
  readonly lambda: number
  readonly reward: Pick<RewardModel, 'name' | 'levels'>
}

/** The document of `generate --best-of --json`. */
export function bestOfDocument(
  writing: Writing,
  rows: readonly RankedTexts[],
  { n, rank, lambda, reward }: Ranking,
  tail: readonly TailMeasure[],
): Record<string, unknown> {
  const { kind, ...level } = rank
  return {
    ...headOf(writing),
    results: rows.map(({ texts, scores, points, chosen }) => ({
      ...resultOf(texts[chosen]),
      sample: texts[chosen].sample,
      score: points[chosen],
      expectation: scores[chosen].expectation,
      utility: scores[chosen].utility,
      quantiles: Array.from(scores[chosen].quantiles),
      scores: points,
      expectations: scores.map(({ expectation }) => expectation),
    })),
    best_of: {
      ...{ n, rank: kind, ...level, lambda, reward: reward.name, levels: [...reward.levels], rows: rows.length },
      tail: tail.map(({ name, all, chosen, byExpectation, gain, againstExpectation }) => ({
        ...{ name, all, chosen, by_expectation: byExpectation, gain, against_expectation: againstExpectation },
      })),
    },
  }
}

/** What people are shown of a text: without control characters, but for line ends and tabs, where a terminal shows it. */
export function shownText({ text, tokens }: Pick<GeneratedText, 'text' | 'tokens'>, terminal: boolean): string {
  return text === null ? Array.from(tokens).join(' ') : terminal ? forTerminal(text) : text
}

/** A text without characters that steer a terminal. */
export function forTerminal(text: string): string {
  return text.replace(/[^\n\t]+/g, printable)
}

/** A text of several, under a line that says which it is and what else is known of it. */
export function textBlock(
  own: GeneratedText,
  samples: number,
  terminal: boolean,
  also: readonly string[] = [],
): string {
  const about = [
    own.id === undefined ? `row ${own.row + 1}` : printable(String(own.id)),
    ...(samples > 1 ? [`sample ${own.sample + 1} of ${samples}`] : []),
    ...(own.finishReason === 'length' ? ['ended by its length'] : []),
    ...also,
  ]
  return `[${about.join(', ')}] ${promptSnippet(own.prompt)}\n${shownText(own, terminal)}\n\n`
}

function promptSnippet(prompt: GeneratedText['prompt']): string {
  if (typeof prompt === 'string') return snippet(prompt, PROMPT_CHARACTERS)
  const last = prompt.at(-1)
  return typeof last === 'object'
    ? snippet(last.content, PROMPT_CHARACTERS)
    : snippet(`[${prompt.slice(0, 20).join(' ')}]`, PROMPT_CHARACTERS)
}

/** The best text of a row. */
export function bestOfBlock({ texts, points, scores, chosen }: RankedTexts, terminal: boolean): string {
  const worth = [`score ${figure(points[chosen])}`, `expectation ${figure(scores[chosen].expectation)}`]
  return textBlock(texts[chosen], texts.length, terminal, worth)
}

/** A line for each quantile of the left tail and the expectation. */
export function tailTable(tail: readonly TailMeasure[], { n, rank, lambda, reward }: Ranking, rows: number): string {
  const level = 'level' in rank ? `:${rank.level}` : ''
  const risk = rank.kind === 'utility' || rank.kind === 'certainty-equivalent' ? ` of lambda ${lambda}` : ''
  const range = ({ difference, interval }: TailMeasure['gain']): string =>
    interval === null ? figure(difference) : `${figure(difference)} (${figure(interval[0])} to ${figure(interval[1])})`
  const head = ['', `all ${n}`, 'chosen', 'by expectation', 'chosen - all', 'chosen - by expectation']
  const lines = tail.map((own) => [
    ...[own.name, figure(own.all), figure(own.chosen), figure(own.byExpectation)],
    ...[range(own.gain), range(own.againstExpectation)],
  ])
  return (
    `Best of ${n} by ${rank.kind}${level}${risk}: means over ${counted(rows, 'prompt')} of what ${printable(reward.name)} says\n` +
    table([head, ...lines], [1, 2, 3])
  )
}

/** How far the writing has come. */
export function writingText(
  { done, texts, tokens }: { readonly done: number; readonly texts: number; readonly tokens: number },
  seconds: number,
): string {
  const rate = Number((tokens / seconds).toPrecision(3))
  return `${done} of ${counted(texts, 'text')}, ${tokens} tokens, ${rate} a second${timeLeft(done, texts, seconds)}`
}
