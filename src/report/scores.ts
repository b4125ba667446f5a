// What `pinball score` and `pinball start` show: scores as a document, a line with a drawing for each row, and for each attribute.
import { printable } from '../files/json.ts'
import type { RewardModel, Score } from '../reward/model.ts'
import { plainMessages } from '../text/messages.ts'
import { axis, commonScale, counted, cutList, figure, nearest, percent, sketch, snippet, table } from './draw.ts'

const SCALE_CHARACTERS = 28
const RESPONSE_CHARACTERS = 40

/** Names of a model and of the device it is on. */
export interface Scorer {
  readonly model: Pick<RewardModel, 'name' | 'levels' | 'attributes' | 'lambda'>
  /** The adapter that the model is under. */
  readonly adapter?: string
  readonly device: { readonly name: string; readonly description: string }
}

const SKIPPED_SHOWN = 5

/** A line for each row that was left out, up to five. */
export function skippedNotes(skipped: readonly string[]): string[] {
  return cutList(
    skipped.map((reason) => `left out: ${reason}`),
    SKIPPED_SHOWN,
    'rows are left out',
  )
}

/** A line that says which rows have utilities beyond float64, which JSON cannot hold, or null. */
export function utilityNote(rows: readonly { readonly where: string }[], results: readonly Score[]): string | null {
  const far = [...results.keys()].filter((i) => !Number.isFinite(results[i].utility))
  if (far.length === 0) return null
  const names = far.slice(0, SKIPPED_SHOWN).map((i) => rows[i].where || `row ${i + 1}`)
  const more = far.length > names.length ? ` and ${far.length - names.length} more` : ''
  return `the utility of ${printable(names.join(', '))}${more} is beyond float64 (-Infinity; null in JSON); a smaller --lambda has one`
}

/** What a row carries to its result. */
export interface Carried {
  readonly id?: string | number
  readonly fields: Readonly<Record<string, unknown>> | null
}

/**
 * The document of `score --json`; `rearranged` says that the quantiles were sorted. Results have the ids of their rows and, as `fields`,
 * what else these carry. A utility beyond float64 is null.
 */
export function scoreDocument(
  { model, adapter, device }: Scorer,
  rows: readonly Carried[],
  results: readonly Score[],
  rearranged = false,
): unknown {
  return {
    model: model.name,
    ...(adapter !== undefined && { adapter }),
    device: device.name,
    levels: [...model.levels],
    attributes: [...model.attributes],
    ...(rearranged && { rearranged }),
    results: results.map((result, i) => ({
      ...(rows[i].id !== undefined && { id: rows[i].id }),
      ...(rows[i].fields && { fields: rows[i].fields }),
      score: result.score,
      expectation: result.expectation,
      utility: Number.isFinite(result.utility) ? result.utility : null,
      quantiles: Array.from(result.quantiles),
      attributes: result.attributes,
      gate: result.gate,
      tokens: result.tokens,
    })),
  }
}

/** One line that says what was scored by what. */
export function scoreHeading({ model, device }: Scorer, rows: number, lambda = model.lambda): string {
  const where = printable(`${model.name} on ${device.description}`)
  const [attributes, levels] = [model.attributes.length, model.levels.length]
  return `${where}: ${counted(rows, 'row')}, ${counted(attributes, 'attribute')} at ${counted(levels, 'level')}, lambda ${lambda}\n`
}

/** A line for each row: score, utility, three quantiles, drawing, the beginning of the response. */
export function scoreTable(
  levels: readonly number[],
  rows: readonly { readonly side: Readonly<Record<string, unknown>> }[],
  results: readonly Score[],
): string {
  const scale = commonScale(
    results.map((result) => result.quantiles),
    SCALE_CHARACTERS,
  )
  const shown = levels.length === 1 ? [levels[0]] : [levels[0], 0.5, levels[levels.length - 1]]
  const head = ['row', 'score', 'utility', ...shown.map(percent), axis(scale), 'response']
  const lines = results.map((result, i) => [
    String(i + 1),
    figure(result.score),
    figure(result.utility),
    ...shown.map((level) => figure(nearest(result.quantiles, levels, level))),
    sketch(result.quantiles, levels, scale),
    snippet(textOf(rows[i].side), RESPONSE_CHARACTERS),
  ])
  const numeric = Array.from({ length: 3 + shown.length }, (_, i) => i)
  return table([head, ...lines], numeric)
}

/** A line for each attribute: weight of the gate, expectation, outer quantiles, drawing; largest weights first. */
export function attributeTable(
  { levels, attributes }: Pick<RewardModel, 'levels' | 'attributes'>,
  result: Score,
): string {
  const names = [...attributes].sort((a, b) => result.gate[b] - result.gate[a])
  const scale = commonScale(
    names.map((name) => result.attributes[name].quantiles),
    SCALE_CHARACTERS,
  )
  const outer = levels.length === 1 ? [levels[0]] : [levels[0], levels[levels.length - 1]]
  const lines = names.map((name) => {
    const { expectation, quantiles } = result.attributes[name]
    const ends = outer.map((level) => figure(nearest(quantiles, levels, level)))
    return [name, figure(result.gate[name]), figure(expectation), ...ends, sketch(quantiles, levels, scale)]
  })
  const numeric = Array.from({ length: 2 + outer.length }, (_, i) => i + 1)
  return table([['attribute', 'weight', 'expected', ...outer.map(percent), axis(scale)], ...lines], numeric)
}

/** What people recognise a row by: its response, its last message, or its token ids. */
function textOf({ response, messages, input_ids: tokens }: Readonly<Record<string, unknown>>): string {
  if (typeof response === 'string') return response
  if (Array.isArray(messages)) return lastContent(messages)
  return Array.isArray(tokens) ? `[${tokens.slice(0, 12).join(' ')}]` : ''
}

function lastContent(messages: readonly unknown[]): string {
  const [last] = (plainMessages(messages) as readonly { content: unknown }[]).slice(-1)
  return String(last.content)
}
