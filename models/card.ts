// The tables of a model's card, made from its metrics: a text between two markers is replaced, so that they cannot drift.
import type { Accuracy } from '../src/evaluate/pairs.ts'
import { type Metrics, SYSTEMS } from './recipe.ts'
import { TEST_SETS } from './recipe_rows.ts'

const BEGIN = '<!-- tables: made by make_reward.ts from metrics.json -->'
const END = '<!-- end of the tables -->'

/** What test sets are called in tables. */
const TITLES: Record<(typeof TEST_SETS)[number], string> = {
  hh: 'HH-RLHF',
  llmbar: 'LLMBar',
  humanevalpack: 'HumanEvalPack',
  hhh: 'HHH',
}

/** The card with its tables made anew. Throws where it has no markers. */
export function fillCard(card: string, metrics: Metrics): string {
  const [from, to] = [card.indexOf(BEGIN), card.indexOf(END)]
  if (from < 0 || to < from) throw new Error(`card: must have the markers "${BEGIN}" and "${END}"`)
  return `${card.slice(0, from + BEGIN.length)}\n${tables(metrics)}${card.slice(to)}`
}

/** All tables as Markdown. */
export function tables(metrics: Metrics): string {
  const names = Object.keys(metrics.attributes)
  const percent = (value: number) => `${value >= 0 ? '+' : ''}${(100 * value).toFixed(1)} %`
  const losses = names.map((name) => {
    const { calibrated: ours, gaussian } = metrics.attributes[name]
    return [
      name,
      whole(ours.items),
      whole(ours.ratings),
      ours.pinball.toFixed(4),
      ours.unconditional_pinball.toFixed(4),
      percent(ours.gain),
      gaussian.pinball.toFixed(4),
      percent(1 - ours.pinball / gaussian.pinball),
      ours.crps.toFixed(4),
      gaussian.crps.toFixed(4),
    ]
  })
  const coverage = names.map((name) => {
    const { calibrated, plain, gaussian } = metrics.attributes[name]
    return [
      name,
      calibrated.coverage_error.toFixed(4),
      calibrated.worst_coverage_error.toFixed(4),
      plain.coverage_error.toFixed(4),
      gaussian.coverage_error.toFixed(4),
      `${(100 * calibrated.crossings).toFixed(1)} %`,
      whole(metrics.calibration_offsets[name].items),
      String(
        metrics.alphas[name] < 0.001
          ? metrics.alphas[name].toExponential(1)
          : Number(metrics.alphas[name].toPrecision(2)),
      ),
      String(metrics.penalties[name]),
    ]
  })
  const rows = names.reduce((sum, name) => sum + metrics.attributes[name].calibrated.ratings, 0)
  const mean = (kind: 'calibrated' | 'plain' | 'gaussian') =>
    names.reduce((sum, name) => sum + metrics.attributes[name][kind].coverage_error, 0) / names.length
  const accuracies = TEST_SETS.map((set) => [
    `${TITLES[set]}, ${whole(metrics.systems.QRM[set].rows)} pairs`,
    ...SYSTEMS.map((system) => interval(metrics.systems[system][set])),
  ])
  const subsets = TEST_SETS.flatMap((set) =>
    Object.keys(metrics.systems.QRM[set].subsets).map((subset) => [
      subset,
      whole(metrics.systems.QRM[set].subsets[subset].rows),
      ...SYSTEMS.map((system) => metrics.systems[system][set].subsets[subset].accuracy.toFixed(3)),
    ]),
  )
  return [
    `Held-out ratings (${whole(rows)} in all), after calibration. "Constant" are the unconditional quantiles of the ratings that the heads were fitted to,`,
    '"Gaussian" is ridge regression with the spread of its residuals; gains are reductions of the mean pinball loss.',
    '',
    markdown(
      ['attribute', 'items', 'ratings', 'pinball', 'constant', 'gain', 'Gaussian', 'gain', 'CRPS', 'CRPS, Gaussian'],
      losses,
    ),
    '',
    `Coverage of the 19 levels: distance of the level from the interval between the shares of held-out ratings below and at or below its quantile, mean over levels (all attributes: ${mean('calibrated').toFixed(4)} calibrated, ${mean('plain').toFixed(4)} not calibrated, ${mean('gaussian').toFixed(4)} Gaussian).`,
    '',
    markdown(
      [
        'attribute',
        'calibrated',
        'worst level',
        'not calibrated',
        'Gaussian',
        'crossings',
        'calibration items',
        'alpha',
        'verbosity penalty',
      ],
      coverage,
    ),
    '',
    'Pairs that nothing was trained on: accuracy with its 95 % Wilson interval; a tie is no win.',
    '',
    markdown(['pairs', ...SYSTEMS], accuracies),
    '',
    markdown(['subset', 'pairs', ...SYSTEMS], subsets),
    '',
    '',
  ].join('\n')
}

function interval({ accuracy, interval: [low, high] }: Accuracy): string {
  return `${accuracy.toFixed(3)} (${low.toFixed(3)} - ${high.toFixed(3)})`
}

const whole = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ',')

function markdown(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...lines.map(line)].join('\n')
}
