// Curves of policies against steps: means over seeds, with 95 % intervals of the means where there are several.
import { meanInterval } from '../evaluate/intervals.ts'
import { TAIL, type Worth } from '../world/measure.ts'
import { rangeOf } from './axes.ts'
import type { Colour, Panel, Series } from './chart.ts'
import { percent } from './draw.ts'

/** What was measured of a policy: at the same steps for every seed. */
export interface Curves<T> {
  readonly label: string
  readonly colour: Colour
  readonly seeds: readonly (readonly { readonly step: number; readonly value: T }[])[]
}

/** A number of what was measured; panels of one `scale` share an axis. */
export interface Wanted<T> {
  readonly title: string
  readonly scale: string
  readonly of: (value: T) => number
}

function seriesOf<T>({ label, colour, seeds }: Curves<T>, of: (value: T) => number): Series {
  const all = seeds[0].map(({ step }, p) => ({ step, ...meanInterval(seeds.map((points) => of(points[p].value))) }))
  return {
    label,
    colour,
    points: all.map(({ step, mean }) => [step, mean] as const),
    ...(seeds.length > 1 && { band: all.map(({ step, interval }) => [step, ...interval!] as const) }),
  }
}

/** A panel for each wanted number, with the curves of all policies. */
export function curvePanels<T>(curves: readonly Curves<T>[], wanted: readonly Wanted<T>[], label: string): Panel[] {
  const drawn = wanted.map(({ of }) => curves.map((one) => seriesOf(one, of)))
  const steps = curves.flatMap(({ seeds }) => seeds.flatMap((points) => points.map(({ step }) => step)))
  const rangeFor = (scale: string) => {
    const own = drawn.filter((_, i) => wanted[i].scale === scale).flat()
    return rangeOf(
      own.flatMap(({ points, band = [] }) => [
        ...points.map(([, y]) => y),
        ...band.flatMap(([, low, high]) => [low, high]),
      ]),
    )
  }
  return wanted.map(({ title, scale }, i) => ({
    title,
    x: { label: 'steps', low: Math.min(...steps), high: Math.max(...steps) },
    y: { label, ...rangeFor(scale) },
    series: drawn[i],
  }))
}

/** The panels of the paper's Figure 3: the left-tail quantiles on one scale, and the expectation. */
export function worthPanels(curves: readonly Curves<Worth>[], label: string): Panel[] {
  const tail = TAIL.map((level, k) => ({
    title: `quantile ${percent(level)}`,
    scale: 'tail',
    of: ({ quantiles }: Worth) => quantiles[k],
  }))
  const mean = { title: 'expectation', scale: 'expectation', of: ({ expectation }: Worth) => expectation }
  return curvePanels(curves, [...tail, mean], label)
}

/** What lines and bands are, in words. */
export const seedsText = (seeds: number): string =>
  seeds === 1 ? 'one seed' : `mean over ${seeds} seeds, with 95 % intervals`
