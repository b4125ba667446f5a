// npm run bench -- plot: draws docs/solver.svg from saved results alone: time against rows and against columns, both axes logarithmic.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import type { AxisSpec } from '../src/report/axes.ts'
import { drawChart, type Panel } from '../src/report/chart.ts'
import { PLOT_COLUMNS, PLOT_ROWS, type PlotPoint, REFERENCE_FILE, readReferences } from './solver/compare.ts'
import { TOLERANCE } from './solver/fits.ts'

const HELP = `usage: npm run bench -- plot [--results FILE] [--out FILE]

  --results FILE  JSON lines with one of npm run bench -- solver --part plot --save NAME; default bench/results/solver.jsonl
  --out FILE      default docs/solver.svg
The points of scikit-learn and R come from ${REFERENCE_FILE}.`

const SERIES = [
  { who: 'scikit-learn', label: 'scikit-learn', colour: 'orange' },
  { who: 'quantreg', label: 'R rq.fit.lasso', colour: 'green' },
  { who: 'pinball', label: 'Pinball', colour: 'blue' },
] as const

const FRAME = { width: 262, height: 246 }

const duration = (ms: number): string => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`)
const amount = (size: number): string => (size >= 1000 && size % 1000 === 0 ? `${size / 1000}k` : String(size))

/** One panel: points of all series against `key`, where the other size is `fixed`. */
function panel(points: readonly PlotPoint[], key: 'rows' | 'columns', fixed: number, y: AxisSpec): Panel {
  const other = key === 'rows' ? 'columns' : 'rows'
  const chosen = points.filter((point) => point[other] === fixed)
  const sizes = [...new Set(chosen.map((point) => point[key]))].sort((a, b) => a - b)
  const series = SERIES.map(({ who, label, colour }) => {
    const line = chosen.filter((point) => point.who === who).sort((a, b) => a[key] - b[key])
    return { label, colour, marks: true, points: line.map((point) => [point[key], point.ms] as const) }
  })
  return {
    title: `time against ${key}, ${fixed.toLocaleString('en')} ${other}`,
    x: { label: key, low: sizes[0], high: sizes.at(-1)!, logarithmic: true, ticks: sizes, format: amount },
    y,
    series,
  }
}

/** The whole picture, of points in milliseconds; `threads` are ours. */
export function drawPlot(points: readonly PlotPoint[], level: number, threads: number): string {
  const times = points.map(({ ms }) => ms)
  const y: AxisSpec = {
    low: 0.8 * Math.min(...times),
    high: 1.25 * Math.max(...times),
    logarithmic: true,
    ticks: Array.from({ length: 9 }, (_, i) => 10 ** (i - 1)),
    format: duration,
  }
  const ours = `Pinball, gap proven below ${TOLERANCE}, on ${threads === 1 ? '1 thread' : `up to ${threads} threads`}`
  return drawChart({
    id: 'solver',
    title: `One quantile regression with an L1 penalty, level ${level}: time of Pinball, scikit-learn and R`,
    subtitle: `${ours}; scikit-learn (HiGHS) and R (quantreg) on the one thread they use`,
    description: summary(points),
    panels: [panel(points, 'rows', PLOT_COLUMNS, y), panel(points, 'columns', PLOT_ROWS, y)],
    columns: 2,
    frame: FRAME,
    names: 'ends',
  })
}

/** What the picture shows, in words. */
function summary(points: readonly PlotPoint[]): string {
  const ours = new Map(
    points.filter(({ who }) => who === 'pinball').map((point) => [`${point.rows} x ${point.columns}`, point.ms]),
  )
  const sentences: string[] = []
  for (const { who, label } of SERIES.slice(0, 2)) {
    const theirs = points.filter((point) => point.who === who && ours.has(`${point.rows} x ${point.columns}`))
    const ratios = theirs.map((point) => point.ms / ours.get(`${point.rows} x ${point.columns}`)!)
    if (ratios.length > 0)
      sentences.push(
        `${label} takes ${Math.min(...ratios).toPrecision(2)} to ${Math.max(...ratios).toPrecision(2)} times as long as Pinball.`,
      )
  }
  return sentences.join(' ')
}

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      results: { type: 'string', default: 'bench/results/solver.jsonl' },
      out: { type: 'string', default: 'docs/solver.svg' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) {
    console.log(HELP)
    return
  }
  const lines = readFileSync(values.results, 'utf8').trim().split('\n')
  const last = lines
    .map((line) => JSON.parse(line) as { part?: string })
    .filter(({ part }) => part === 'plot')
    .at(-1) as { level: number; threads: number; points: PlotPoint[] } | undefined
  if (!last) {
    const command = 'npm run bench -- solver --part plot --save NAME'
    throw new Error(`bench: ${values.results} has no line of the part plot; ${command} adds one`)
  }
  const points = [...last.points, ...readReferences()]
  mkdirSync(dirname(values.out), { recursive: true })
  writeFileSync(values.out, drawPlot(points, last.level, last.threads))
  console.log(summary(points))
  console.log(JSON.stringify({ out: values.out, points: points.length }))
}
