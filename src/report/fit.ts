// What `pinball fit` prints: how far it has come, and at its end a document, or a table of levels with their certificates.
import { printable } from '../files/json.ts'
import type { AlphaProgress } from '../solver/alpha.ts'
import type { FittedHeads, HeadsProgress } from '../train/heads.ts'
import type { AttributeFit, Kept } from '../train/heads_keeper.ts'
import { counted, figure, table } from './draw.ts'
import { timeLeft } from './progress.ts'

/** For --json. */
export function fitDocument(heads: FittedHeads, rows: number, ms: number): Record<string, unknown> {
  const { attributes, columns, alpha, alphas, fits } = heads
  const paths = alphas && { paths: Object.fromEntries(attributes.map((name, m) => [name, alphas[m].path])) }
  return { rows, columns, alpha, fits: fits.map(fields), ms, ...paths }
}

function fields({ attribute, level, objective, dual, gap, status, nonzeros, iterations, ms, method }: AttributeFit) {
  return { attribute, level, objective, dual, gap, status, nonzeros, iterations, ms, method }
}

/** For people. */
export function fitReport(heads: FittedHeads, rows: number, names: readonly string[] | null, out: string): string {
  const { fits, columns, alpha } = heads
  const chosen =
    typeof alpha === 'object' ? Object.entries(alpha).map(([name, value]) => `${name} ${figure(value)}`) : []
  const choice = chosen.length > 0 ? `alpha by cross-validation: ${chosen.join(', ')}\n` : ''
  const outputs = `${fits.length} heads over ${columns} columns from ${rows} rows`
  return `${levelTable(fits)}\n${coefficients(heads, names)}${choice}${printable(out)}: ${outputs}\n`
}

function levelTable(fits: readonly AttributeFit[]): string {
  const head = ['attribute', 'level', 'objective', 'gap', 'nonzeros', 'iterations', 'ms', 'method']
  const lines = fits.map((level) => [
    level.attribute,
    figure(level.level),
    figure(level.objective),
    level.gap.toExponential(1),
    String(level.nonzeros),
    String(level.iterations),
    String(Math.round(level.ms)),
    level.status === 'optimal' ? level.method : `${level.method}, ${level.status}`,
  ])
  return table([head, ...lines], [1, 2, 3, 4, 5, 6])
}

const COLUMNS_SHOWN = 10

/** A line of coefficients for each level, where the columns have names and are few. */
function coefficients({ columns, weight, bias, fits }: FittedHeads, names: readonly string[] | null): string {
  if (names === null || columns > COLUMNS_SHOWN) return ''
  const digits = (value: number) => String(Number(value.toPrecision(6)))
  const lines = fits.map(({ attribute, level }, row) => [
    attribute,
    figure(level),
    ...(bias ? [digits(bias[row])] : []),
    ...Array.from(weight.subarray(row * columns, (row + 1) * columns), digits),
  ])
  const head = ['attribute', 'level', ...(bias ? ['(intercept)'] : []), ...names]
  return `${table([head, ...lines], [...head.keys()].slice(1))}\n`
}

/** What a fit is doing: the level and how far it is, or the choice of a penalty. */
function doing({ attribute, level, choice }: HeadsProgress): string {
  if (choice) return `${attribute}: ${choosing(choice)}`
  const { gap, nonzeros, iterations } = level!
  const steps = counted(iterations, 'step')
  return `${attribute} ${level!.level}: gap ${gap.toExponential(1)}, ${nonzeros} nonzeros, ${steps}`
}

/** How far the choice of a penalty has come, in words. */
export function choosing({ index, alphas, alpha, fold, folds }: AlphaProgress): string {
  if (index < 0) return 'choosing alpha, first where it begins'
  return `choosing alpha, ${index + 1} of ${alphas} (${figure(alpha)}), fold ${fold + 1} of ${folds}`
}

/** What is being done and how many levels are; `first` of them were there, `seconds` ago, when the work began. */
export function levelsText(progress: HeadsProgress, first: number, seconds: number): string {
  const { done, total } = progress
  return `${doing(progress)}; ${done} of ${total} levels${timeLeft(done - first, total - first, seconds)}`
}

/** What a fit of `total` levels that has not come to its end leaves in `folder`. */
export function keptText({ levels, alphas }: Kept, total: number, folder: string): string {
  if (levels + alphas === 0) return 'no level was finished'
  return `${levels} of ${total} levels are kept in ${printable(folder)}; the same command goes on from there`
}
