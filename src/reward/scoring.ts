// Which number of a reward distribution ranks responses.
import { expectation, quantile, rearrange } from './distribution.ts'
import type { HeadScore } from './heads.ts'
import { cvar, entropic, utility } from './risk.ts'

export type ScoreKind =
  /** The model's score: the expectation of the mixture as a sum. */
  | { readonly kind: 'expectation' }
  /** -mean exp(-lambda q) */
  | { readonly kind: 'utility' }
  /** Mean of the lowest share `level`. */
  | { readonly kind: 'cvar'; readonly level: number }
  /** Of the rearranged, piecewise-linear curve. */
  | { readonly kind: 'quantile'; readonly level: number }
  /** The sure reward of the same exponential utility, -ln(mean exp(-lambda q)) / lambda. */
  | { readonly kind: 'certainty-equivalent' }

const CVAR_LEVEL = 0.1
const KINDS = 'expectation, utility, cvar, cvar:LEVEL, quantile:LEVEL, certainty-equivalent'

/** Parses the name of a score; throws on others. */
export function parseScoreKind(text: string): ScoreKind {
  const [name, rest] = text.split(/:(.*)/s)
  if (rest === undefined && (name === 'expectation' || name === 'utility' || name === 'certainty-equivalent'))
    return { kind: name }
  if (name === 'cvar' && rest === undefined) return { kind: 'cvar', level: CVAR_LEVEL }
  if (name === 'cvar' || name === 'quantile') {
    const level = /^(0?\.\d+|0|1|1\.0*|0\.0*)$/.test(rest ?? '') ? Number(rest) : Number.NaN
    const fits = name === 'cvar' ? level > 0 && level <= 1 : level >= 0 && level <= 1
    if (fits) return { kind: name, level }
    throw new Error(
      `the level of ${name} must be a number ${name === 'cvar' ? 'above 0' : 'from 0'} to 1, got ${JSON.stringify(rest)}`,
    )
  }
  throw new Error(`a score must be one of ${KINDS}, got ${JSON.stringify(text)}`)
}

/** The number that ranks, larger is better. `levels` [K] are those of the quantiles. Throws on utilities beyond float64. */
export function pointScore(
  kind: ScoreKind,
  { score, quantiles }: Pick<HeadScore, 'score' | 'quantiles'>,
  levels: readonly number[],
  lambda: number,
): number {
  switch (kind.kind) {
    case 'expectation':
      return score
    case 'utility':
      return checkUtility(utility(quantiles, lambda), lambda)
    case 'cvar':
      return cvar(quantiles, kind.level)
    case 'quantile':
      return quantile(rearrange(quantiles), levels, kind.level)
    case 'certainty-equivalent':
      return lambda === 0 ? expectation(quantiles) : entropic(quantiles, lambda)
  }
}

/** Infinite ones would all tie. */
function checkUtility(value: number, lambda: number): number {
  if (Number.isFinite(value)) return value
  throw new Error(
    `the utility of lambda ${lambda} is ${value}; rank by certainty-equivalent, which orders alike and does not overflow`,
  )
}
