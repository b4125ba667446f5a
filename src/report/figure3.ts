// What `pinball reproduce figure3` and `pinball start` show of the experiment in the small world: a summary for the terminal, a page, files.
import type { MeanInterval } from '../evaluate/intervals.ts'
import { meanInterval } from '../evaluate/intervals.ts'
import { printable } from '../files/json.ts'
import { type Comparison, EQUAL_WITHIN } from '../world/compare.ts'
import type { Figure3, Figure3Progress, Run, Start } from '../world/figure3.ts'
import { type Measures, tailOf } from '../world/measure.ts'
import { STYLE_NAMES } from '../world/words.ts'
import { drawChart, escaped } from './chart.ts'
import { duration, table } from './draw.ts'
import { figure3Charts } from './figure3_charts.ts'
import { chartFigure, htmlTable, page } from './page.ts'

/** The files of a report: a page that opens from the disk, the charts, and all numbers. */
export function figure3Files(figure: Figure3): Record<string, string> {
  const charts = figure3Charts(figure)
  return {
    ...Object.fromEntries(Object.entries(charts).map(([file, chart]) => [file, drawChart(chart)])),
    'figures.json': `${JSON.stringify(figure, null, 1)}\n`,
    'report.html': figure3Page(figure),
  }
}

const CAPTIONS: Readonly<Record<string, string>> = {
  'figure1.svg':
    'The paper’s Figure 1. Each camp of raters has a mode of its own; the three answers have the same expectation.',
  'figure3-estimate.svg':
    'The paper’s Figure 3, as the paper could draw it: quantiles that the reward model estimates for the answers of each policy.',
  'figure3-truth.svg': 'The same by the true distributions, which a world with simulated raters knows in closed form.',
  'overoptimisation.svg':
    'A policy learns what pleases the reward model. Where a curve leaves 0, that is no longer what pleases the raters.',
  'calibration.svg':
    'The reward model is calibrated on answers that people wrote. The further a policy goes, the less that says about its answers.',
}

function figure3Page(figure: Figure3): string {
  const { settings } = figure
  const charts = Object.entries(figure3Charts(figure)).map(([file, chart]) => chartFigure(chart, CAPTIONS[file]))
  const claims = figure.comparisons.map((one) => `<li>${escaped(verdict(one))}</li>`).join('\n')
  return page('Risk-neutral and risk-aware policies in a small world', [
    `<p>${escaped(WORLD_TEXT)}</p>`,
    claims === '' ? '' : `<h2>What came of it</h2>\n<ul>\n${claims}\n</ul>`,
    htmlTable('At the end, means over seeds', ['policy', ...COLUMNS], rows(figure)),
    '<h2>Figures</h2>',
    ...charts,
    '<h2>Answers of the first seed</h2>',
    examplesTable(figure),
    '<h2>Settings</h2>',
    htmlTable(
      'Settings',
      ['setting', 'value'],
      Object.entries({ ...settings, device: figure.device }).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : JSON.stringify(value),
      ]),
      [1],
    ),
    '<p class="soft">All numbers, those of every seed included, are in figures.json beside this page.</p>',
  ])
}

/** What the small world is, in a few sentences. */
export const WORLD_TEXT =
  'People of the small world answer prompts like "how was the soup ?" by a topic and a few adjectives. Three camps of raters judge them: warm words please everybody a little, bold and wry ones please two thirds very much and annoy the others; all three have the same mean. A quantile reward model is fitted to sampled ratings, a small language model is fine-tuned on answers and then trained against the reward model: by its expectation (neutral), and by the utility −E[exp(−λ r)] (risk-aware).'

const COLUMNS = ['true tail', 'true mean', 'est. tail', 'est. mean', ...STYLE_NAMES, 'faulty'] as const

/** The fine-tuned policy and each other at the end: means over the seeds. */
function rows({ starts, runs, settings }: Figure3): string[][] {
  const row = (name: string, all: readonly Measures[]): string[] => {
    const mean = (of: (measures: Measures) => number) => meanInterval(all.map(of)).mean
    return [
      name,
      ...[
        mean(({ truth }) => tailOf(truth)),
        mean(({ truth }) => truth.expectation),
        mean(({ estimate }) => tailOf(estimate)),
        mean(({ estimate }) => estimate.expectation),
      ].map(signed),
      ...STYLE_NAMES.map((style) => share(mean(({ styles }) => styles[style]))),
      share(mean(({ faulty }) => faulty)),
    ]
  }
  const finals = (all: readonly (Run | Start)[]) => all.map(({ final }) => final)
  return [
    row('fine-tuned', finals(starts)),
    ...settings.policies.map((policy) => row(policy, finals(runs.filter((run) => run.policy === policy)))),
  ]
}

const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`
const share = (value: number): string => `${Math.round(100 * value)} %`

function interval({ mean, interval: found }: MeanInterval): string {
  return found ? `${signed(mean)} [${signed(found[0])}, ${signed(found[1])}]` : signed(mean)
}

/** One sentence about a policy beside the neutral one. */
function verdict({ policy, truth, higherTail, equalExpectation }: Comparison): string {
  const numbers = `true left tail ${interval(truth.tail)}, true expectation ${interval(truth.expectation)}`
  const found = `${policy} less neutral: ${numbers}`
  if (truth.tail.interval === null) return `${found} (one seed: no intervals)`
  const tail = higherTail ? 'a higher left tail' : 'no left tail that is surely higher'
  const mean = equalExpectation
    ? `an expectation that is equal within ${EQUAL_WITHIN}`
    : `an expectation that is not shown to be equal within ${EQUAL_WITHIN}`
  return `${found}; 95 % intervals over ${truth.tail.values} seeds: ${tail}, ${mean}`
}

function examplesTable({ starts, runs, settings }: Figure3): string {
  const own = [starts[0], ...settings.policies.map((policy) => runs.find((run) => run.policy === policy)!)]
  const lines = own[0].examples.map(({ prompt }, i) => [prompt, ...own.map(({ examples }) => examples[i].answer)])
  const columns = own.map((_, i) => i + 1)
  return htmlTable('One answer each', ['prompt', 'fine-tuned', ...settings.policies], lines, columns)
}

/** The summary for the terminal: policies side by side, and what came of it. */
export function figure3Text(figure: Figure3): string {
  const head = ['policy', ...COLUMNS]
  const numeric = head.map((_, i) => i).slice(1)
  const claims = figure.comparisons.map((one) => `${verdict(one)}\n`).join('')
  return `${table([head, ...rows(figure)], numeric)}${claims}`
}

/** Answers of the policies side by side, for the terminal. */
export function figure3Examples({ starts, runs, settings }: Figure3, most: number): string {
  const own = [starts[0], ...settings.policies.map((policy) => runs.find((run) => run.policy === policy)!)]
  const lines = own[0].examples
    .slice(0, most)
    .map(({ prompt }, i) => [prompt, ...own.map(({ examples }) => examples[i].answer)])
  return table([['prompt', 'fine-tuned', ...settings.policies], ...lines], [])
}

/** How far the experiment is; `seconds` since `from` of it was done. */
export function figure3Progress(now: Figure3Progress, from: number, seconds: number): string {
  const { stage, repetition, seeds, policy, done, total, share: part } = now
  const where = `seed ${repetition} of ${seeds}, ${policy ? `${policy}, ` : ''}${stage}`
  const steps = total > 1 ? `, step ${Math.floor(done)} of ${total}` : ''
  const left = part > from ? `, ${duration((seconds * (1 - part)) / (part - from))} left` : ''
  return `${where}${steps}, ${Math.floor(100 * part)} %${left}`
}

/** The document of `--json`: the numbers, and where the files are. */
export function figure3Document(figure: Figure3, out: string, files: readonly string[]): unknown {
  return { out, files, ...figure }
}

/** Says what an interrupt left in the folder `out`. */
export function keptText(out: string): string {
  return `interrupted; what is finished is kept in ${printable(out)}; the same command goes on from there`
}
