// npm run bench -- plot: draws docs/solver.svg from saved results alone: time against rows and against columns, both axes logarithmic.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { PLOT_COLUMNS, PLOT_ROWS, type PlotPoint, REFERENCE_FILE, readReferences } from './solver/compare.ts'
import { TOLERANCE } from './solver/fits.ts'

const HELP = `usage: npm run bench -- plot [--results FILE] [--out FILE]

  --results FILE  JSON lines with one of npm run bench -- solver --part plot --save NAME; default bench/results/solver.jsonl
  --out FILE      default docs/solver.svg
The points of scikit-learn and R come from ${REFERENCE_FILE}.`

const WIDTH = 880
const HEIGHT = 404
/** Frame of each panel: left edge and size. */
const PANELS = [{ left: 66 }, { left: 500 }] as const
const FRAME = { top: 90, width: 262, height: 246 }

/** Colours keep their contrast on the light and on the dark card; each series also has a mark and a label of its own. */
const SERIES = [
  { who: 'scikit-learn', label: 'scikit-learn', mark: 'square', light: '#b4520a', dark: '#f0924a' },
  { who: 'quantreg', label: 'R rq.fit.lasso', mark: 'triangle', light: '#1d7f4e', dark: '#4cc38a' },
  { who: 'pinball', label: 'Pinball', mark: 'circle', light: '#0b62c4', dark: '#5aa9ff' },
] as const

const colours = (scheme: 'light' | 'dark'): string =>
  SERIES.map(
    ({ who, [scheme]: colour }) => `.${who} .line { stroke: ${colour} } .${who} .full { fill: ${colour} }`,
  ).join(' ')

const STYLE = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-size: 14px; font-weight: 600 } .name { font-weight: 600 } .line { fill: none; stroke-width: 2 }
  .card { fill: #ffffff; stroke: #d5dae0 } .text { fill: #1f2830 } .soft { fill: #59636e } .grid { stroke: #e4e8ec }
  ${colours('light')}
  @media (prefers-color-scheme: dark) {
    .card { fill: #12171d; stroke: #2f3841 } .text { fill: #e6ebf0 } .soft { fill: #9aa5b1 } .grid { stroke: #28303a }
    ${colours('dark')}
  }`

interface Axis {
  /** Position of a value in pixels. */
  readonly at: (value: number) => number
  readonly ticks: readonly number[]
}

/** A logarithmic axis from `low` to `high`. */
function logAxis(low: number, high: number, from: number, to: number, ticks: readonly number[]): Axis {
  const at = (value: number): number => from + ((to - from) * Math.log(value / low)) / Math.log(high / low)
  return { at, ticks: ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001) }
}

const round = (value: number): string => String(Math.round(value * 10) / 10)

function duration(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${ms / 1000} s`
}

function mark(shape: (typeof SERIES)[number]['mark'], x: number, y: number): string {
  if (shape === 'circle') return `<circle class="full" cx="${round(x)}" cy="${round(y)}" r="4"/>`
  if (shape === 'square') return `<rect class="full" x="${round(x - 3.5)}" y="${round(y - 3.5)}" width="7" height="7"/>`
  return `<path class="full" d="M${round(x)} ${round(y - 4.6)}l4.6 8h-9.2z"/>`
}

/** One panel: points of all series against `key`, where the other size is `fixed`. */
function panel(points: readonly PlotPoint[], key: 'rows' | 'columns', fixed: number, left: number, y: Axis): string {
  const other = key === 'rows' ? 'columns' : 'rows'
  const chosen = points.filter((point) => point[other] === fixed)
  const sizes = [...new Set(chosen.map((point) => point[key]))].sort((a, b) => a - b)
  const right = left + FRAME.width
  const bottom = FRAME.top + FRAME.height
  const x = logAxis(sizes[0], sizes.at(-1)!, left + 8, right - 8, sizes)
  const parts: string[] = []
  const heading = `time against ${key}, ${fixed.toLocaleString('en')} ${other}`
  parts.push(`<text class="text" x="${left}" y="${FRAME.top - 12}">${heading}</text>`)
  for (const tick of y.ticks) {
    const at = round(y.at(tick))
    parts.push(`<path class="grid" d="M${left} ${at}H${right}"/>`)
    parts.push(
      `<text class="soft" x="${left - 8}" y="${round(y.at(tick) + 4)}" text-anchor="end">${duration(tick)}</text>`,
    )
  }
  for (const tick of x.ticks) {
    const name = tick >= 1000 && tick % 1000 === 0 ? `${tick / 1000}k` : String(tick)
    parts.push(`<path class="grid" d="M${round(x.at(tick))} ${bottom}v5"/>`)
    parts.push(`<text class="soft" x="${round(x.at(tick))}" y="${bottom + 18}" text-anchor="middle">${name}</text>`)
  }
  parts.push(`<text class="soft" x="${(left + right) / 2}" y="${bottom + 38}" text-anchor="middle">${key}</text>`)
  const labels: { text: string; who: string; x: number; y: number }[] = []
  for (const { who, label, mark: shape } of SERIES) {
    const line = chosen.filter((point) => point.who === who).sort((a, b) => a[key] - b[key])
    if (line.length === 0) continue
    const at = line.map((point): [number, number] => [x.at(point[key]), y.at(point.ms)])
    const path = at.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${round(px)} ${round(py)}`).join('')
    parts.push(
      `<g class="${who}"><path class="line" d="${path}"/>${at.map(([px, py]) => mark(shape, px, py)).join('')}</g>`,
    )
    const [lastX, lastY] = at.at(-1)!
    labels.push({ text: label, who, x: lastX + 10, y: lastY + 4 })
  }
  labels.sort((a, b) => a.y - b.y)
  for (let i = 1; i < labels.length; i++)
    if (labels[i].x === labels[i - 1].x) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 15)
  for (const label of labels)
    parts.push(
      `<g class="${label.who}"><text class="full name" x="${round(label.x)}" y="${round(label.y)}">${label.text}</text></g>`,
    )
  return parts.join('\n')
}

/** The whole picture, of points in milliseconds; `threads` are ours. */
export function drawPlot(points: readonly PlotPoint[], level: number, threads: number): string {
  const times = points.map(({ ms }) => ms)
  const bottom = FRAME.top + FRAME.height
  const decades = Array.from({ length: 9 }, (_, i) => 10 ** (i - 1))
  const y = logAxis(0.8 * Math.min(...times), 1.25 * Math.max(...times), bottom, FRAME.top, decades)
  const title = `One quantile regression with an L1 penalty, level ${level}`
  const ours = `Pinball, gap proven below ${TOLERANCE}, on ${threads === 1 ? '1 thread' : `up to ${threads} threads`}`
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-labelledby="t d">
<title id="t">${title}: time of Pinball, scikit-learn and R</title>
<desc id="d">${summary(points)}</desc>
<style>${STYLE}
</style>
<rect class="card" x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="8"/>
<text class="text title" x="18" y="28">${title}</text>
<text class="soft" x="18" y="47">${ours}; scikit-learn (HiGHS) and R (quantreg) on the one thread they use</text>
${panel(points, 'rows', PLOT_COLUMNS, PANELS[0].left, y)}
${panel(points, 'columns', PLOT_ROWS, PANELS[1].left, y)}
</svg>
`
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
