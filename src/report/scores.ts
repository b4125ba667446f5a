// What `pinball score` and `pinball start` show: scores as a document, a line with a drawing for each row, and for each attribute.
import { printable } from '../files/json.ts'
import type { FileRecord } from '../files/records.ts'
import type { RewardModel, Score } from '../reward/model.ts'
import { axis, commonScale, counted, figure, nearest, percent, sketch, snippet, table } from './draw.ts'

const SCALE_CHARACTERS = 28
const RESPONSE_CHARACTERS = 40

/** Names of a model and of the device it is on. */
export interface Scorer {
  readonly model: Pick<RewardModel, 'name' | 'levels' | 'attributes' | 'lambda'>
  /** The adapter that the model is under. */
  readonly adapter?: string
  readonly device: { readonly name: string; readonly description: string }
}

/** The document of `score --json`; `rearranged` says that the quantiles were sorted. */
export function scoreDocument(
  { model, adapter, device }: Scorer,
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
    results: results.map((result) => ({
      score: result.score,
      expectation: result.expectation,
      utility: result.utility,
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
  rows: readonly Pick<FileRecord, 'value'>[],
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
    snippet(textOf(rows[i].value), RESPONSE_CHARACTERS),
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
  if (Array.isArray(messages)) return String((messages[messages.length - 1] as { content: unknown }).content)
  return Array.isArray(tokens) ? `[${tokens.slice(0, 12).join(' ')}]` : ''
}
