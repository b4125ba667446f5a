// Pages that stand alone: HTML with charts inside, each with its numbers as a table.
import { type Chart, drawChart, escaped, type Panel } from './chart.ts'

const STYLE = `
:root { color-scheme: light dark; --text: #1f2830; --soft: #59636e; --back: #f6f8fa; --card: #ffffff; --edge: #d5dae0 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6ebf0; --soft: #9aa5b1; --back: #0b0f14; --card: #12171d; --edge: #2f3841 }
}
body { margin: 0 auto; max-width: 1120px; padding: 24px 16px 64px; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
h1 { font-size: 26px; line-height: 1.25 } h2 { font-size: 20px; margin: 40px 0 8px }
figure { margin: 20px 0 } figure svg { max-width: 100%; height: auto; display: block }
figcaption, .soft { color: var(--soft) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: 12px 0; font-size: 14px; background: var(--card) }
th, td { border: 1px solid var(--edge); padding: 4px 10px; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td.text, th.text { text-align: left } caption { text-align: left; padding: 4px 0; font-weight: 600 }
summary { cursor: pointer; padding: 4px 0 }
`

/** A page of parts that are HTML already. */
export function page(title: string, parts: readonly string[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
${parts.join('\n')}
</main>
</body>
</html>
`
}

/** A chart with a caption, and its numbers below it. */
export function chartFigure(chart: Chart, caption: string): string {
  const tables = chart.panels.map(panelTable).join('\n')
  return `<figure>
<div class="scroll">
${drawChart(chart)}</div>
<figcaption>${escaped(caption)}</figcaption>
<details><summary>Numbers of this figure</summary>
<div class="scroll">
${tables}
</div></details>
</figure>`
}

/** The numbers of a panel: a row for each x, two columns more where a series has a band. */
function panelTable({ title, x, series, rules = [] }: Panel): string {
  const drawn = series.filter(({ points }) => points.length > 0)
  const head = [
    x.label ?? 'x',
    ...drawn.flatMap(({ label, band }) => (band ? [label, `${label}, low`, `${label}, high`] : [label])),
  ]
  const xs = [...new Set(drawn.flatMap(({ points }) => points.map(([value]) => value)))].sort((a, b) => a - b)
  const rows = xs.map((value) => [
    shown(value),
    ...drawn.flatMap(({ points, band }) => {
      const y = points.find(([at]) => at === value)?.[1]
      if (!band) return [shown(y)]
      const [, low, high] = band.find(([at]) => at === value) ?? []
      return [shown(y), shown(low), shown(high)]
    }),
  ])
  const notes = rules.map(({ axis, at }) => `<p class="soft">Line at ${axis} = ${shown(at)}.</p>`).join('')
  return htmlTable(title, head, rows) + notes
}

const shown = (value: number | undefined): string => (value === undefined ? '' : String(Number(value.toPrecision(4))))

/** A table; the first column heads its rows. Columns of text are named in `texts`. */
export function htmlTable(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly string[])[],
  texts: readonly number[] = [],
): string {
  const kind = (column: number) => (texts.includes(column) ? ' class="text"' : '')
  const cells = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 0 ? `<th scope="row">${escaped(cell)}</th>` : `<td${kind(i)}>${escaped(cell)}</td>`))
      .join('')
  return `<table><caption>${escaped(caption)}</caption>
<thead><tr>${head.map((cell, i) => `<th scope="col"${kind(i)}>${escaped(cell)}</th>`).join('')}</tr></thead>
<tbody>
${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}
</tbody></table>
`
}
