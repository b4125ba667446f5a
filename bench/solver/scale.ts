// The parts at the size of a language model: states, scale, attributes, gram.
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { openSolver } from '../../src/index.ts'
import type { QuantileFit } from '../../src/solver/fit.ts'
import { ALPHA, cachedBlocks, cachedFeatures, checkFit, peakMiB, someLevels } from './fits.ts'
import { gramLines, gramRates, linearRate, watchGram } from './gram.ts'
import { type PartOptions, type PartResult, seconds, share } from './parts.ts'
import {
  cachePath,
  cacheStates,
  isCached,
  makeRatings,
  massiveColumns,
  type RatingType,
  readRows,
  widen,
} from './states.ts'

/** Sizes of the paper: rows per attribute are at most this, columns are the width of its backbone. */
const ROWS = 60_000
const COLUMNS = 4096
/** Memory allowed beside the features. */
const BESIDE_MIB = 1.2e9 / 2 ** 20

interface Dataset {
  readonly name: string
  readonly rows: number
  readonly type: RatingType
  readonly attributes: readonly string[]
}

/** The paper's appendix: 19 attributes, at most 60,000 rows each. */
const DATASETS: readonly Dataset[] = [
  {
    name: 'HelpSteer',
    rows: 35_331,
    type: 'five',
    attributes: ['helpfulness', 'correctness', 'coherence', 'complexity', 'verbosity'],
  },
  {
    name: 'UltraFeedback',
    rows: 60_000,
    type: 'ten',
    attributes: ['overall_score', 'instruction_following', 'truthfulness', 'honesty', 'helpfulness'],
  },
  { name: 'BeaverTails', rows: 30_000, type: 'binary', attributes: ['is_safe'] },
  { name: 'Prometheus', rows: 60_000, type: 'five', attributes: ['score'] },
  { name: 'Argilla-Capybara', rows: 15_000, type: 'five', attributes: ['overall_quality'] },
  { name: 'Argilla-OpenOrca', rows: 13_000, type: 'ten', attributes: ['judge_lm'] },
  {
    name: 'CodeUltraFeedback',
    rows: 50_000,
    type: 'five',
    attributes: ['complexity', 'style', 'explanation', 'instruction-following', 'readability'],
  },
]

/** Makes the cached states in a process of their own, so that their memory is not counted as the solver's. */
function needStates(rows: number, columns: number): void {
  if (isCached({ rows, columns })) return
  console.error(`making states ${rows} x ${columns}, once, in ${cachePath({ rows, columns })}`)
  const run = fileURLToPath(new URL('../run.ts', import.meta.url))
  const size = ['--rows', String(rows), '--columns', String(columns)]
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', run, 'solver', '--part', 'states', ...size], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (status !== 0) throw new Error(`bench: could not make the states ${rows} x ${columns}`)
}

/** Makes the cached states if they are not there, and tells what they are like. */
export async function states({ rows = ROWS, columns = COLUMNS, threads }: PartOptions): Promise<PartResult> {
  const begin = performance.now()
  const cached = isCached({ rows, columns })
  const path = cached ? cachePath({ rows, columns }) : await cacheStates({ rows, columns }, threads)
  const ms = performance.now() - begin
  const traits = describe(widen(readRows(path, columns, 0, Math.min(rows, 4096))), columns)
  const { rms, massive, meanShare, factors, rowSpread } = traits
  if (!(Math.abs(rms - 2) < 0.1)) throw new Error(`bench: ${path} has root mean square ${rms}, must be 2; delete it`)
  return {
    title: `states ${rows} x ${columns}; figures from the first ${Math.min(rows, 4096)} rows`,
    head: ['what', 'value'],
    lines: [
      ['root mean square', rms.toFixed(3)],
      ['massive columns', massive.map((value) => value.toFixed(1)).join(', ')],
      ['share of the mean in all squares', (100 * meanShare).toFixed(0)],
      ['effective number of factors', factors.toFixed(1)],
      ["deviation of the rows' root mean squares", rowSpread.toFixed(3)],
    ],
    notes: [cached ? 'were in the cache' : `made in ${seconds(ms)}`, `${statSync(path).size / 2 ** 20} MiB`],
    record: { rows, columns, ...traits, ms: cached ? null : ms },
  }
}

/** Figures of states by which to see that they are what they should be. */
function describe(x: Float32Array, columns: number) {
  const rows = x.length / columns
  const mean = new Float64Array(columns)
  const square = new Float64Array(columns)
  const rowSquare = new Float64Array(rows)
  for (let i = 0; i < x.length; i++) {
    const j = i % columns
    mean[j] += x[i] / rows
    square[j] += x[i] ** 2 / rows
    rowSquare[Math.floor(i / columns)] += x[i] ** 2 / columns
  }
  const total = square.reduce((sum, value) => sum + value, 0)
  // Rows in pairs estimate the trace of the squared correlations, hence the number of equal factors that would have it.
  let pairs = 0
  const deviation = square.map((value, j) => Math.sqrt(Math.max(value - mean[j] ** 2, 1e-30)))
  for (let i = 0; i + 1 < rows; i += 2) {
    let product = 0
    for (let j = 0; j < columns; j++)
      product += ((x[i * columns + j] - mean[j]) * (x[(i + 1) * columns + j] - mean[j])) / deviation[j] ** 2
    pairs += product ** 2
  }
  const rowRms = rowSquare.map(Math.sqrt)
  const average = rowRms.reduce((sum, value) => sum + value, 0) / rows
  return {
    rms: Math.sqrt(total / columns),
    massive: massiveColumns(columns).map((j) => Math.sqrt(square[j])),
    meanShare: mean.reduce((sum, value) => sum + value ** 2, 0) / total,
    factors: columns ** 2 / (pairs / Math.floor(rows / 2)),
    rowSpread: Math.sqrt(rowRms.reduce((sum, value) => sum + (value - average) ** 2, 0) / rows),
  }
}

/** 60,000 x 4,096 in bf16, 19 levels. */
export async function scale(options: PartOptions): Promise<PartResult> {
  const { rows = ROWS, columns = COLUMNS, threads, device } = options
  const levels = someLevels(options.levels ?? 19)
  needStates(rows, columns)
  const labels = { values: makeRatings({ rows, columns }) }
  const before = peakMiB()
  const work = watchGram()
  const begin = performance.now()
  const solver = await openSolver(cachedBlocks({ rows, columns }), { threads, device })
  const openMs = performance.now() - begin
  const fit = await solver.fit(labels, { levels, alpha: ALPHA, duals: true, onLevel: ({ fit }) => reportLevel(fit) })
  const ms = performance.now() - begin
  await solver.close()
  const peak = peakMiB()
  const features = cachedFeatures({ rows, columns })
  const sample = options.checkAll ? undefined : [levels.length >> 1]
  const gaps = checkFit(fit, { features, labels, levels }, sample)
  const rates = gramRates(work, await linearRate(threads))
  const stateMiB = (2 * rows * columns) / 2 ** 20
  const nonzeros = fit.fits.map((level) => level.nonzeros)
  return {
    title: `${rows} x ${columns} in bf16, ${levels.length} levels, alpha ${ALPHA}, ${solver.threads} threads, device ${device}`,
    head: ['what', 'value', 'of the time'],
    lines: [
      ['all, from file to weights', seconds(ms), ''],
      ['reading and opening', seconds(openMs), share(openMs, ms)],
      ...phaseLines(fit, ms - openMs),
      ...gramLines(rates),
      ['Newton steps', String(fit.fits.reduce((sum, { iterations }) => sum + iterations, 0)), ''],
      ['nonzeros', `${Math.min(...nonzeros)} to ${Math.max(...nonzeros)}`, ''],
      ['largest gap reported', gaps.claimed.toExponential(2), ''],
      [
        `largest gap confirmed (${gaps.levelsConfirmed} of ${levels.length} levels)`,
        gaps.confirmed.toExponential(2),
        '',
      ],
      ['features', `${stateMiB.toFixed(0)} MiB`, ''],
      ['peak memory of the process', `${peak.toFixed(0)} MiB`, ''],
    ],
    notes: [
      `peak beyond the features: ${(peak - stateMiB).toFixed(0)} MiB (allowed: ${BESIDE_MIB.toFixed(0)}), ${before.toFixed(0)} of it before the solver`,
    ],
    record: {
      rows,
      columns,
      levels: levels.length,
      threads: solver.threads,
      device,
      ms,
      openMs,
      phases: fit.phases,
      gram: rates,
      fits: fit.fits,
      ...gaps,
      peakMiB: peak,
      baseMiB: before,
      stateMiB,
    },
  }
}

function reportLevel({ level, ms, gap, nonzeros, iterations }: QuantileFit['fits'][number]): void {
  console.error(
    `level ${level}: ${seconds(ms)}, gap ${gap.toExponential(1)}, ${nonzeros} nonzeros, ${iterations} steps`,
  )
}

/** A row for each phase and one for what no phase claims; throws where the phases are more than the whole. */
function phaseLines({ phases }: QuantileFit, wholeMs: number): string[][] {
  const entries = Object.entries(phases).sort((a, b) => b[1] - a[1])
  const sum = entries.reduce((total, [, ms]) => total + ms, 0)
  if (sum > 1.01 * wholeMs) throw new Error(`bench: the phases take ${sum} ms, more than the whole of ${wholeMs} ms`)
  const lines = [...entries, ['in no phase', wholeMs - sum] as const]
  return lines.map(([name, ms]) => [`  ${name}`, seconds(ms), share(ms, wholeMs)])
}

/** The 19 attributes of the paper, or some of them, with the time of all estimated. */
export async function attributes(options: PartOptions): Promise<PartResult> {
  const { columns = COLUMNS, threads } = options
  const levels = someLevels(options.levels ?? 19)
  const most = options.rows ?? ROWS
  needStates(most, columns)
  const counts = chooseAttributes(options.attributes)
  const lines: string[][] = []
  const fits: Record<string, unknown>[] = []
  let totalMs = 0
  let estimatedMs = 0
  let attribute = 0
  for (const [index, { name, rows: wanted, type, attributes: names }] of DATASETS.entries()) {
    const rows = Math.min(wanted, most)
    const begin = performance.now()
    const solver = await openSolver(cachedBlocks({ rows: most, columns }, rows), { threads })
    const openMs = performance.now() - begin
    totalMs += openMs
    estimatedMs += openMs
    let datasetMs = 0
    for (const attributeName of names.slice(0, counts[index])) {
      const labels = { values: makeRatings({ rows: most, columns, type, attribute: attribute++ }).subarray(0, rows) }
      const started = performance.now()
      const fit = await solver.fit(labels, { levels, alpha: ALPHA })
      const ms = performance.now() - started
      const gap = Math.max(...fit.fits.map((level) => level.gap))
      if (fit.fits.some(({ status }) => status !== 'optimal'))
        throw new Error(`bench: ${name} ${attributeName} has a gap of ${gap}, above the tolerance`)
      datasetMs += ms
      const nonzeros = fit.fits.map((level) => level.nonzeros)
      const methods = [...new Set(fit.fits.map(({ method }) => method))].join(', ')
      lines.push([
        `${name} ${attributeName}`,
        String(rows),
        type,
        seconds(ms),
        gap.toExponential(1),
        `${Math.min(...nonzeros)}-${Math.max(...nonzeros)}`,
        methods,
      ])
      fits.push({ dataset: name, attribute: attributeName, rows, type, ms, gap, nonzeros, methods, phases: fit.phases })
      console.error(`${name} ${attributeName}: ${seconds(ms)}`)
    }
    await solver.close()
    totalMs += datasetMs
    estimatedMs += (datasetMs / counts[index]) * names.length
  }
  const complete = fits.length === 19
  return {
    title: `${fits.length} of the paper's 19 attributes, ${columns} columns in bf16, ${levels.length} levels each, alpha ${ALPHA}`,
    head: ['attribute', 'rows', 'ratings', 'time', 'gap', 'nonzeros', 'method'],
    lines,
    notes: [
      'all take the first rows of the same states, with ratings of their own',
      complete
        ? `all 19, with reading: ${seconds(totalMs)} (${(totalMs / 60_000).toFixed(1)} min)`
        : `${fits.length} with reading: ${seconds(totalMs)}; all 19 by the mean of each data set: about ${(estimatedMs / 60_000).toFixed(1)} min (estimate)`,
    ],
    record: { columns, levels: levels.length, complete, ms: totalMs, estimatedMs, fits, peakMiB: peakMiB() },
  }
}

/** How many attributes of each data set: one of each first, then round and round until there are `count`. */
function chooseAttributes(count: number): number[] {
  if (!(count >= DATASETS.length && count <= 19))
    throw new Error(`bench: --attributes must be ${DATASETS.length} to 19, got ${count}`)
  const counts = DATASETS.map(() => 0)
  for (let left = count; left > 0; )
    for (const [index, { attributes: names }] of DATASETS.entries())
      if (left > 0 && counts[index] < names.length) {
        counts[index]++
        left--
      }
  return counts
}

/** The Gram panels' speed beside the linear map's, and where the time goes. */
export async function gram(options: PartOptions): Promise<PartResult> {
  const { rows = 20_000, columns = 2048, threads, device } = options
  const levels = someLevels(options.levels ?? 3)
  needStates(rows, columns)
  const labels = { values: makeRatings({ rows, columns }) }
  const features = { data: readRows(cachePath({ rows, columns }), columns, 0, rows), rows, columns }
  const linear = await linearRate(threads)
  const work = watchGram()
  const solver = await openSolver(features, { threads, device })
  const begin = performance.now()
  const fit = await solver.fit(labels, { levels, alpha: ALPHA, duals: true })
  const ms = performance.now() - begin
  await solver.close()
  const gaps = checkFit(fit, { features: cachedFeatures({ rows, columns }), labels, levels }, [levels.length >> 1])
  const rates = gramRates(work, linear)
  return {
    title: `${rows} x ${columns} in bf16, ${levels.length} levels, ${solver.threads} threads, device ${device}`,
    head: ['phase', 'time', 'share'],
    lines: [...phaseLines(fit, ms), ['whole fit', seconds(ms), '100.0 %'], ...gramLines(rates)],
    notes: [
      'panels: half of the Gram matrix counts, and packing counts as time; choosing the rows is in phase gram alone',
    ],
    record: {
      rows,
      columns,
      levels: levels.length,
      threads: solver.threads,
      device,
      ms,
      phases: fit.phases,
      gram: rates,
      ...gaps,
    },
  }
}
