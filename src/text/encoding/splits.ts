// Cuts a text where something matches. Source: NormalizedString::split of tokenizers.
import type { Match } from './regex_run.ts'

export const BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const
export type Behavior = (typeof BEHAVIORS)[number]

interface Piece {
  readonly begin: number
  end: number
  readonly match: boolean
}

/** The pieces of a text, matches and what is between them. */
function pieces(text: string, matches: readonly Match[], invert: boolean): Piece[] {
  const found: Piece[] = []
  let last = 0
  for (const [begin, end] of matches) {
    if (last < begin) found.push({ begin: last, end: begin, match: invert })
    found.push({ begin, end, match: !invert })
    last = end
  }
  if (last < text.length) found.push({ begin: last, end: text.length, match: invert })
  return found
}

/** Parts of the text in their order, none empty. */
export function splitText(text: string, matches: readonly Match[], behavior: Behavior, invert = false): string[] {
  const all = pieces(text, matches, invert)
  const merged =
    behavior === 'Removed'
      ? all.filter(({ match }) => !match)
      : behavior === 'Isolated'
        ? all
        : behavior === 'MergedWithNext'
          ? withNext(all)
          : withPrevious(all, behavior === 'Contiguous')
  const parts: string[] = []
  for (const { begin, end } of merged) if (begin < end) parts.push(text.slice(begin, end))
  return parts
}

/** A match joins what is before it, unless that is a match too; where `contiguous`, like pieces join each other instead. */
function withPrevious(all: readonly Piece[], contiguous: boolean): Piece[] {
  const kept: Piece[] = []
  let previous = false
  for (const piece of all) {
    const joins = contiguous ? piece.match === previous : piece.match && !previous
    if (joins && kept.length > 0) kept[kept.length - 1].end = piece.end
    else kept.push({ ...piece })
    previous = piece.match
  }
  return kept
}

function withNext(all: readonly Piece[]): Piece[] {
  const kept: Piece[] = []
  let next = false
  for (const piece of all.toReversed()) {
    if (piece.match && !next && kept.length > 0) kept.push({ ...kept.pop()!, begin: piece.begin })
    else kept.push(piece)
    next = piece.match
  }
  return kept.reverse()
}

/** Every character of a set, one by one. `pattern` matches one character. */
export function charactersOf(text: string, pattern: RegExp): Match[] {
  return Array.from(text.matchAll(pattern), ({ 0: one, index }): Match => [index, index + one.length])
}
