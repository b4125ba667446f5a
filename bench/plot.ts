// npm run bench -- plot: draws docs/solver.svg from saved results alone: time against rows and against columns, both axes logarithmic.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { type PlotPoint, REFERENCE_FILE, readReferences } from './solver/compare.ts'

const HELP = `usage: npm run bench -- plot [--results FILE] [--out FILE]

  --results FILE  JSON lines with one of npm run bench -- solver --part plot --save NAME; default bench/results/solver.jsonl
  --out FILE      default docs/solver.svg
The points of scikit-learn and R come from ${REFERENCE_FILE}.`

const WIDTH = 880
const HEIGHT = 400
/** Frame of each panel: left edge and size. */
const PANELS = [{ left: 62 }, { left: 478 }] as const
const FRAME = { top: 62, width: 270, height: 270 }

/** Colours keep their contrast on the light and on the dark card; each series also has a mark and a label of its own. */
const SERIES = [
  { who: 'scikit-learn', label: 'scikit-learn', mark: 'square' },
  { who: 'quantreg', label: 'R rq.fit.lasso', mark: 'triangle' },
  { who: 'pinball', label: 'Pinball', mark: 'circle' },
] as const

const STYLE = `
  .card { fill: #ffffff; stroke: #d5dae0 } .text { fill: #1f2830 } .soft { fill: #59636e } .grid { stroke: #e4e8ec }
  .pinball { --c: #0b62c4 } .quantreg { --c: #1d7f4e } .scikit-learn { --c: #b4520a }
  @media (prefers-color-scheme: dark) {
    .card { fill: #12171d; stroke: #2f3841 } .text { fill: #e6ebf0 } .soft { fill: #9aa5b1 } .grid { stroke: #28303a }
    .pinball { --c: #5aa9ff } .quantreg { --c: #4cc38a } .scikit-learn { --c: #f0924a }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-size: 14px; font-weight: 600 } .line { fill: none; stroke: var(--c); stroke-width: 2 } .mark, .name { fill: var(--c) }
  .name { font-weight: 600 }`

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
  if (shape === 'circle') return `<circle class="mark" cx="${round(x)}" cy="${round(y)}" r="4"/>`
  if (shape === 'square') return `<rect class="mark" x="${round(x - 3.5)}" y="${round(y - 3.5)}" width="7" height="7"/>`
  return `<path class="mark" d="M${round(x)} ${round(y - 4.6)}l4.6 8h-9.2z"/>`
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
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + 15)
  for (const label of labels)
    parts.push(
      `<g class="${label.who}"><text class="name" x="${round(label.x)}" y="${round(label.y)}">${label.text}</text></g>`,
    )
  return parts.join('\n')
}

/** The whole picture, of points in milliseconds. `threads` and `level` are for its title. */
export function drawPlot(points: readonly PlotPoint[], level: number): string {
  const times = points.map(({ ms }) => ms)
  const bottom = FRAME.top + FRAME.height
  const decades = Array.from({ length: 9 }, (_, i) => 10 ** (i - 1))
  const y = logAxis(0.8 * Math.min(...times), 1.25 * Math.max(...times), bottom, FRAME.top, decades)
  // The size that most points of a panel share is what the other panel varies.
  const most = (key: 'rows' | 'columns'): number => {
    const counts = new Map<number, number>()
    for (const point of points) counts.set(point[key], (counts.get(point[key]) ?? 0) + 1)
    return [...counts].sort((a, b) => b[1] - a[1])[0][0]
  }
  const title = `One quantile regression with an L1 penalty, level ${level}`
  const ratio = summary(points)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-labelledby="t d">
<title id="t">${title}: time of Pinball, scikit-learn and R</title>
<desc id="d">${ratio}</desc>
<style>${STYLE}
</style>
<rect class="card" x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="8"/>
<text class="text title" x="16" y="26">${title}; the lower, the faster</text>
${panel(points, 'rows', most('columns'), PANELS[0].left, y)}
${panel(points, 'columns', most('rows'), PANELS[1].left, y)}
</svg>
`
}

/** What the picture shows, in words: how many times faster at the largest size that both did. */
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
  const results = lines.map((line) => JSON.parse(line) as { part?: string; level?: number; points?: PlotPoint[] })
  const last = results.filter(({ part }) => part === 'plot').at(-1)
  if (!last?.points || !last.level) {
    throw new Error(
      `bench: ${values.results} has no line of the part plot; npm run bench -- solver --part plot --save NAME`,
    )
  }
  const points = [...last.points, ...readReferences()]
  mkdirSync(dirname(values.out), { recursive: true })
  writeFileSync(values.out, drawPlot(points, last.level))
  console.log(summary(points))
  console.log(JSON.stringify({ out: values.out, points: points.length }))
}
