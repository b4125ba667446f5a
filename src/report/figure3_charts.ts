// The charts of `pinball reproduce figure3`: Figure 1, Figure 3 by the estimate and in truth, over-optimisation and calibration.
import { meanInterval } from '../evaluate/intervals.ts'
import type { Figure3, Run } from '../world/figure3.ts'
import { type Measures, tailOf, type Worth } from '../world/measure.ts'
import type { PolicyName } from '../world/settings.ts'
import type { Chart, Colour, Panel, Series } from './chart.ts'
import { type Curves, curvePanels, seedsText, worthPanels } from './seed_curves.ts'

export const POLICY_COLOURS: Readonly<Record<PolicyName, Colour>> = {
  neutral: 'blue',
  'risk-aware': 'orange',
  'reliability-weighted': 'green',
}

/** Size of the frame of a panel. */
export const PANEL = { width: 264, height: 190 }

/** All charts, by the names of their files. */
export function figure3Charts(figure: Figure3): Record<string, Chart> {
  return {
    'figure1.svg': figure1Chart(figure),
    'figure3-estimate.svg': figure3Chart(figure, 'estimate'),
    'figure3-truth.svg': figure3Chart(figure, 'truth'),
    'overoptimisation.svg': driftChart(figure),
    'calibration.svg': calibrationChart(figure),
  }
}

function figure1Chart({ figure1 }: Figure3): Chart {
  const peak = Math.max(...figure1.flatMap(({ truth, estimate }) => [...truth.density, ...estimate.density]))
  const panels = figure1.map(({ answer, values, truth, estimate }): Panel => {
    const line = (density: readonly number[]) => values.map((value, i) => [value, density[i]] as const)
    return {
      title: answer,
      x: { label: 'rating', low: values[0], high: values[values.length - 1] },
      y: { label: 'density', low: 0, high: peak * 1.05 },
      series: [
        {
          label: 'true ratings',
          colour: 'grey',
          points: line(truth.density),
          band: values.map((value, i) => [value, 0, truth.density[i]] as const),
        },
        { label: 'quantile reward model', colour: 'blue', points: line(estimate.density) },
        // Drawn by the rule; here for its name above the panels.
        { label: 'point estimate', colour: 'orange', points: [], dashed: true },
      ],
      rules: [{ axis: 'x', at: estimate.expectation, colour: 'orange' }],
    }
  })
  const means = figure1.map(({ answer, estimate }) => `${estimate.expectation.toFixed(2)} for "${answer}"`).join(', ')
  return {
    id: 'figure1',
    title: 'Figure 1: a distribution of ratings, and a point estimate of it',
    subtitle: 'One answer unites the raters, the others split them into two modes; a point estimate cannot tell',
    description: `Density of the true ratings and of the estimated distribution for ${figure1.length} answers. The point estimates are ${means}.`,
    panels,
    columns: 3,
    frame: PANEL,
    names: 'above',
  }
}

/** The curves of all policies: each seed's begin with its fine-tuned policy. */
function curvesOf<T>({ settings, starts, runs }: Figure3, of: (measures: Measures) => T): Curves<T>[] {
  return settings.policies.map((policy) => ({
    label: policy,
    colour: POLICY_COLOURS[policy],
    seeds: runs
      .filter((run) => run.policy === policy)
      .map(({ seed, points }) => [
        { step: 0, value: of(starts.find((start) => start.seed === seed)!.final) },
        ...points.map(({ step, measures }) => ({ step, value: of(measures) })),
      ]),
  }))
}

/** Ends of curves in words. */
function ends(figure: Figure3, of: 'truth' | 'estimate'): string {
  return figure.settings.policies
    .map((policy) => {
      const runs = figure.runs.filter((run: Run) => run.policy === policy)
      const mean = (value: (worth: Worth) => number) => meanInterval(runs.map(({ final }) => value(final[of]))).mean
      return `${policy}: left tail ${mean(tailOf).toFixed(2)}, expectation ${mean((worth) => worth.expectation).toFixed(2)}`
    })
    .join('; ')
}

function figure3Chart(figure: Figure3, of: 'truth' | 'estimate'): Chart {
  const whose = of === 'truth' ? 'in truth' : 'by the reward model'
  return {
    id: `figure3-${of}`,
    title: `Figure 3: left tail and expectation of the ratings of a policy's answers, ${whose}`,
    subtitle: `Quantiles of each answer's distribution, averaged over answers; ${seedsText(figure.settings.seeds)}`,
    description: `Curves against steps of reinforcement learning. At the end, ${ends(figure, of)}.`,
    panels: worthPanels(
      curvesOf(figure, (measures) => measures[of]),
      'rating',
    ),
    columns: 3,
    frame: PANEL,
    names: 'above',
  }
}

function driftChart(figure: Figure3): Chart {
  const wanted = [
    {
      title: 'left tail: estimate less truth',
      scale: 'drift',
      of: ({ estimate, truth }: Measures) => tailOf(estimate) - tailOf(truth),
    },
    {
      title: 'expectation: estimate less truth',
      scale: 'drift',
      of: ({ estimate, truth }: Measures) => estimate.expectation - truth.expectation,
    },
    { title: 'what faults of answers take', scale: 'faults', of: ({ fault }: Measures) => fault },
  ]
  return {
    id: 'overoptimisation',
    title: 'Over-optimisation: how far the estimate leaves the truth as the policy moves',
    subtitle: `Above 0 the reward model thinks too well of the answers; ${seedsText(figure.settings.seeds)}`,
    description:
      'Differences of estimate and truth against steps, and what repeated words, wrong topics and missing ends take from the ratings.',
    panels: curvePanels(
      curvesOf(figure, (measures) => measures),
      wanted,
      'rating',
    ),
    columns: 3,
    frame: PANEL,
    names: 'above',
  }
}

function calibrationChart({ levels, starts, runs, settings }: Figure3): Chart {
  const line = (label: string, colour: Colour, all: readonly Measures[]): Series => ({
    label,
    colour,
    points: levels.map((level, k) => [level, meanInterval(all.map(({ coverage }) => coverage[k])).mean] as const),
    ...(all.length > 1 && {
      band: levels.map(
        (level, k) => [level, ...meanInterval(all.map(({ coverage }) => coverage[k])).interval!] as const,
      ),
    }),
  })
  const before = line(
    'fine-tuned',
    'grey',
    starts.map(({ final }) => final),
  )
  return {
    id: 'calibration',
    title: 'Calibration of the estimate, before and after reinforcement learning',
    subtitle: `True probability of a rating at or below the estimated quantile; calibrated is the diagonal; ${seedsText(settings.seeds)}`,
    description:
      'Coverage of each level on the answers of the fine-tuned policy, and on those of each policy at the end.',
    panels: settings.policies.map((policy) => ({
      title: `${policy} at the end`,
      x: { label: 'level', low: 0, high: 1 },
      y: { label: 'covered', low: 0, high: 1 },
      series: [
        {
          label: 'calibrated',
          colour: 'grey',
          points: [
            [0, 0],
            [1, 1],
          ],
          dashed: true,
        },
        before,
        line(
          policy,
          POLICY_COLOURS[policy],
          runs.flatMap((run) => (run.policy === policy ? [run.final] : [])),
        ),
      ],
    })),
    columns: 3,
    frame: PANEL,
    names: 'above',
  }
}
