// Charts as SVG that stands alone: panels of lines with bands and marks, on a light and on a dark page, with a title and a description for
// those who do not see them.
import { type Axis, type AxisSpec, layAxis } from './axes.ts'

/** Colours keep their contrast on the light and on the dark card; each goes with a mark of its own. */
const COLOURS = {
  blue: { light: '#0b62c4', dark: '#5aa9ff', mark: 'circle' },
  orange: { light: '#b4520a', dark: '#f0924a', mark: 'square' },
  green: { light: '#1d7f4e', dark: '#4cc38a', mark: 'triangle' },
  grey: { light: '#59636e', dark: '#9aa5b1', mark: 'diamond' },
} as const

export type Colour = keyof typeof COLOURS

export interface Series {
  readonly label: string
  readonly colour: Colour
  readonly points: readonly (readonly [x: number, y: number])[]
  /** Area around the line, or under it. */
  readonly band?: readonly (readonly [x: number, low: number, high: number])[]
  readonly marks?: boolean
  readonly dashed?: boolean
}

/** A straight line across the panel, with a few words. */
export interface Rule {
  readonly axis: 'x' | 'y'
  readonly at: number
  readonly label?: string
  readonly colour: Colour
}

export interface Panel {
  readonly title: string
  readonly x: AxisSpec
  readonly y: AxisSpec
  readonly series: readonly Series[]
  readonly rules?: readonly Rule[]
}

export interface Chart {
  /** Tells the parts of one chart from those of others on a page: letters, digits and hyphens. */
  readonly id: string
  readonly title: string
  readonly subtitle?: string
  /** What the chart shows, in words. */
  readonly description: string
  readonly panels: readonly Panel[]
  readonly columns: number
  /** Size of the frame of each panel. */
  readonly frame: { readonly width: number; readonly height: number }
  /** Where series are named: at the end of their lines, or once above all panels. */
  readonly names: 'ends' | 'above'
}

const LEFT = 66
const TITLE = 62
const LEGEND = 24
const PANEL_TITLE = 28
const BELOW = 54
const ENDS = 112
const GAP = 18
const LINE = 15

/** Draws a chart. */
export function drawChart(chart: Chart): string {
  const { id, title, subtitle, description, panels, columns, frame, names } = chart
  const top = (subtitle === undefined ? TITLE - 20 : TITLE) + (names === 'above' ? LEGEND : 0)
  const cell = {
    width: LEFT + frame.width + (names === 'ends' ? ENDS : GAP),
    height: PANEL_TITLE + frame.height + BELOW,
  }
  const width = columns * cell.width + GAP
  const height = top + Math.ceil(panels.length / columns) * cell.height
  const parts = panels.map((panel, i) =>
    drawPanel(panel, {
      left: (i % columns) * cell.width + LEFT,
      top: top + Math.floor(i / columns) * cell.height + PANEL_TITLE,
      ...frame,
      ends: names === 'ends',
    }),
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" id="${id}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="${id}-title ${id}-text">
<title id="${id}-title">${escaped(title)}</title>
<desc id="${id}-text">${escaped(description)}</desc>
<style>${style(id)}
</style>
<rect class="card" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8"/>
<text class="text title" x="18" y="28">${escaped(title)}</text>
${subtitle === undefined ? '' : `<text class="soft" x="18" y="47">${escaped(subtitle)}</text>\n`}${names === 'above' ? `${legend(panels, top - LEGEND + 8)}\n` : ''}${parts.join('\n')}
</svg>
`
}

function style(id: string): string {
  const colours = (scheme: 'light' | 'dark'): string =>
    Object.entries(COLOURS)
      .map(([name, { [scheme]: colour }]) => `#${id} .${name} { --own: ${colour} }`)
      .join(' ')
  return `
  #${id} text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  #${id} .title { font-size: 14px; font-weight: 600 } #${id} .name { font-weight: 600 }
  #${id} .line { fill: none; stroke: var(--own); stroke-width: 2 } #${id} .full { fill: var(--own) }
  #${id} .band { fill: var(--own); opacity: 0.18 } #${id} .dashed { stroke-dasharray: 6 4 }
  #${id} .card { fill: #ffffff; stroke: #d5dae0 } #${id} .text { fill: #1f2830 } #${id} .soft { fill: #59636e }
  #${id} .grid { stroke: #e4e8ec; fill: none }
  ${colours('light')}
  @media (prefers-color-scheme: dark) {
    #${id} .card { fill: #12171d; stroke: #2f3841 } #${id} .text { fill: #e6ebf0 } #${id} .soft { fill: #9aa5b1 }
    #${id} .grid { stroke: #28303a }
    ${colours('dark')}
  }`
}

interface Box {
  readonly left: number
  readonly top: number
  readonly width: number
  readonly height: number
  readonly ends: boolean
}

function drawPanel({ title, x: xSpec, y: ySpec, series, rules = [] }: Panel, box: Box): string {
  const right = box.left + box.width
  const bottom = box.top + box.height
  const x = layAxis(xSpec, box.left + 8, right - 8)
  const y = layAxis(ySpec, bottom, box.top)
  const parts = [`<text class="text" x="${box.left}" y="${box.top - 10}">${escaped(title)}</text>`]
  for (const { at, text } of y.ticks) {
    parts.push(`<path class="grid" d="M${box.left} ${round(at)}H${right}"/>`)
    parts.push(`<text class="soft" x="${box.left - 8}" y="${round(at + 4)}" text-anchor="end">${escaped(text)}</text>`)
  }
  for (const { at, text } of x.ticks) {
    parts.push(`<path class="grid" d="M${round(at)} ${bottom}v5"/>`)
    parts.push(`<text class="soft" x="${round(at)}" y="${bottom + 18}" text-anchor="middle">${escaped(text)}</text>`)
  }
  const middle = (box.left + right) / 2
  if (xSpec.label)
    parts.push(
      `<text class="soft" x="${middle}" y="${bottom + 38}" text-anchor="middle">${escaped(xSpec.label)}</text>`,
    )
  if (ySpec.label) parts.push(sideways(ySpec.label, box.left - 48, (box.top + bottom) / 2))
  for (const one of series) if (one.band) parts.push(drawBand(one, x, y))
  for (const rule of rules) parts.push(drawRule(rule, x, y, box))
  for (const one of series) parts.push(drawLine(one, x, y))
  if (box.ends) parts.push(...endLabels(series, x, y))
  return parts.join('\n')
}

function sideways(text: string, x: number, y: number): string {
  return `<text class="soft" x="${x}" y="${y}" text-anchor="middle" transform="rotate(-90 ${x} ${y})">${escaped(text)}</text>`
}

function drawBand({ band = [], colour }: Series, x: Axis, y: Axis): string {
  const over = band.map(([at, , high]) => `${round(x.at(at))} ${round(y.at(high))}`)
  const back = [...band].reverse().map(([at, low]) => `${round(x.at(at))} ${round(y.at(low))}`)
  return `<path class="${colour} band" d="M${[...over, ...back].join('L')}Z"/>`
}

function drawRule({ axis, at, label, colour }: Rule, x: Axis, y: Axis, box: Box): string {
  const place = round((axis === 'x' ? x : y).at(at))
  const path =
    axis === 'x' ? `M${place} ${box.top + box.height}V${box.top}` : `M${box.left} ${place}H${box.left + box.width}`
  const [tx, ty] = axis === 'x' ? [Number(place) + 6, box.top + 12] : [box.left + 6, Number(place) - 6]
  const text = label ? `<text class="full name" x="${tx}" y="${ty}">${escaped(label)}</text>` : ''
  return `<g class="${colour}"><path class="line dashed" d="${path}"/>${text}</g>`
}

function drawLine({ points, colour, marks = false, dashed = false }: Series, x: Axis, y: Axis): string {
  if (points.length === 0) return ''
  const at = points.map(([px, py]): [number, number] => [x.at(px), y.at(py)])
  const path = at.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${round(px)} ${round(py)}`).join('')
  const own = marks ? at.map(([px, py]) => drawMark(colour, px, py)).join('') : ''
  return `<g class="${colour}"><path class="line${dashed ? ' dashed' : ''}" d="${path}"/>${own}</g>`
}

function drawMark(colour: Colour, x: number, y: number): string {
  const { mark } = COLOURS[colour]
  if (mark === 'circle') return `<circle class="full" cx="${round(x)}" cy="${round(y)}" r="4"/>`
  if (mark === 'square') return `<rect class="full" x="${round(x - 3.5)}" y="${round(y - 3.5)}" width="7" height="7"/>`
  if (mark === 'diamond') return `<path class="full" d="M${round(x)} ${round(y - 5)}l5 5l-5 5l-5 -5z"/>`
  return `<path class="full" d="M${round(x)} ${round(y - 4.6)}l4.6 8h-9.2z"/>`
}

/** Names at the ends of lines, one below the other where they would meet. */
function endLabels(series: readonly Series[], x: Axis, y: Axis): string[] {
  const labels = series
    .filter(({ points }) => points.length > 0)
    .map(({ label, colour, points }) => {
      const [px, py] = points[points.length - 1]
      return { label, colour, x: x.at(px) + 10, y: y.at(py) + 4 }
    })
    .sort((a, b) => a.y - b.y)
  for (let i = 1; i < labels.length; i++)
    if (labels[i].x === labels[i - 1].x) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + LINE)
  return labels.map(
    ({ label, colour, x: left, y: base }) =>
      `<g class="${colour}"><text class="full name" x="${round(left)}" y="${round(base)}">${escaped(label)}</text></g>`,
  )
}

/** Every series of the panels once, in a line. */
function legend(panels: readonly Panel[], y: number): string {
  const known = new Map(panels.flatMap(({ series }) => series.map((one) => [`${one.colour} ${one.label}`, one])))
  let left = 18
  const parts: string[] = []
  for (const { label, colour, marks, dashed } of known.values()) {
    const line = `<path class="line${dashed ? ' dashed' : ''}" d="M${left} ${y - 4}h26"/>`
    const mark = marks ? drawMark(colour, left + 13, y - 4) : ''
    parts.push(
      `<g class="${colour}">${line}${mark}<text class="full name" x="${left + 34}" y="${y}">${escaped(label)}</text></g>`,
    )
    left += 34 + 7.2 * label.length + 24
  }
  return parts.join('\n')
}

const round = (value: number): string => String(Math.round(value * 10) / 10)

/** Text as SVG and HTML take it. */
export function escaped(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;')
}
