// Heads over several attributes as a library: problems of arrays and files, and fits that are cut or damaged, in memory.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeSafetensors } from '../src/files/safetensors.ts'
import { memorySource } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import { openWork, WORK_FILE } from '../src/files/work.ts'
import { encodeHeads, readHeadsFile } from '../src/reward/heads_file.ts'
import { openRatings } from '../src/reward/rating_file.ts'
import { fitQuantiles } from '../src/solver/fit.ts'
import { type FittedHeads, fitHeads, type HeadsOptions } from '../src/train/heads.ts'
import { keepFinished, PART_NAMES } from '../src/train/heads_keeper.ts'
import { fitRidge } from '../src/train/multi_attribute.ts'
import { makeProblem, type Problem, ratingsProblem } from '../src/train/problem.ts'
import { fails } from './assert.ts'
import { tensor } from './command.ts'
import { random } from './random.ts'

const TWO = ['one', 'two']

/** Two attributes over random features, which hang on a column each. */
function problemOf(rows: number, columns: number): Problem {
  const draw = random(8)
  const data = draw.normal(rows * columns)
  const labels = draw.normal(rows * 2).map((noise, i) => noise + data[(i >> 1) * columns + (i % 2)])
  return makeProblem({ data, rows, columns }, { attributes: TWO, labels })
}

test('heads of a problem in memory are those of each attribute, and go through their file', async () => {
  const draw = random(3)
  const [rows, columns, lines] = [40, 3, 70]
  const data = draw.normal(rows * columns)
  const labels = draw.normal(lines * 2)
  labels[4] = Number.NaN
  const rowIndex = Uint32Array.from({ length: lines }, (_, i) => (i * 7) % rows)
  const weights = draw.uniform(lines, 0.5, 2)
  const ratings = { attributes: TWO, labels, rowIndex, weights }
  const metadata = { model: 'm', fingerprint: 'f', other: 'x' }
  const problem = makeProblem({ data, rows, columns }, ratings, { columns: ['a', 'b', 'c'], metadata })
  const options = { levels: [0.25, 0.75], alpha: 0.01, intercept: true }
  const byRating = await fitHeads(problem, { ...options, unit: 'rating' })
  const heads = await fitHeads(problem, options)
  for (const [m, name] of TWO.entries()) {
    const values = labels.filter((_, i) => i % 2 === m)
    // By item each weight is over the number of ratings of its row: rows have one rating or two, one of them a missing one.
    const shared = weights.map((weight, i) => {
      const own = rowIndex.filter((row, j) => row === rowIndex[i] && !Number.isNaN(values[j]))
      return Number.isNaN(values[i]) ? 0 : weight / own.length
    })
    for (const [found, used] of [
      [byRating, weights],
      [heads, shared],
    ] as const) {
      const alone = await fitQuantiles({ data, rows, columns }, { values, rowIndex, weights: used }, options)
      assert.equal(found.weight.slice(m * 2 * columns, (m + 1) * 2 * columns), alone.weights)
      assert.equal(found.bias!.slice(m * 2, m * 2 + 2), alone.intercepts)
      assert.equal(
        found.fits.slice(m * 2, m * 2 + 2).map(({ attribute, level, gap }) => [attribute, level, gap]),
        alone.fits.map(({ level, gap }) => [name, level, gap]),
      )
    }
  }
  assert.is.not(heads.weight.join(), byRating.weight.join())
  const file = await readHeadsFile(memorySource('h', Buffer.concat(encodeHeads(heads, heads.metadata))))
  const { attributes, levels, bias, weight, transform, fingerprint } = heads
  assert.equal(
    { ...file, fileHash: undefined },
    {
      name: 'h',
      attributes,
      levels,
      columns,
      weight,
      bias,
      transform,
      fingerprint,
      fitted: heads.fitted,
      metadata: heads.metadata,
      fileHash: undefined,
    },
  )
  assert.equal(Object.keys(heads.metadata), [
    ...['attributes', 'levels', 'alpha', 'intercept', 'tolerance', 'columns', 'unit', 'fitted_sha256'],
    ...['model', 'fingerprint'],
  ])
  const points = await fitRidge(problem, { threads: 1 })
  assert.equal([points.attributes, points.columns, points.levels, points.fingerprint], [TWO, columns, null, 'f'])
  const one = makeProblem({ data, rows, columns }, ratings, { select: ['two'] })
  assert.equal((await fitHeads(one, options)).weight, heads.weight.slice(2 * columns))
})

test('a problem of files of ratings is that of their arrays', async () => {
  const { features, labels } = problemOf(60, 5)
  const data = await features.read(0, 60)
  const tensors = [tensor('embeddings', [60, 5], data), tensor('labels', [60, 2], labels)]
  let closed = 0
  const source = {
    ...memorySource('r', Buffer.concat(encodeSafetensors(tensors, { attributes: JSON.stringify(TWO) }))),
    close: async () => void closed++,
  }
  const problem = ratingsProblem(await openRatings([source]), { select: ['two', 'one'] })
  assert.equal([problem.attributes, problem.features.name], [['two', 'one'], 'r'])
  const [turned, straight] = await Promise.all([
    fitHeads(problem, { levels: [0.5] }),
    fitHeads(problemOf(60, 5), { levels: [0.5] }),
  ])
  assert.equal([...turned.weight], [...straight.weight.slice(5), ...straight.weight.slice(0, 5)])
  assert.is(closed, 0, 'whoever opened it closes it')
})

test('what does not fit together is refused when the problem is made', async () => {
  const matrix = { data: new Float32Array(6).fill(1), rows: 3, columns: 2 }
  const good = { attributes: TWO, labels: Float32Array.of(1, 2, 3, 4, 5, 6) }
  const nan = Float32Array.of(1, Number.NaN, 3, Number.NaN, 5, Number.NaN)
  const cases: [Parameters<typeof makeProblem>, string | RegExp][] = [
    [[{ ...matrix, rows: 4 }, good], 'features: features of 4 x 2 must have 8 values, got 6'],
    [[matrix, { ...good, attributes: ['a', 'a'] }], 'features: attributes must be different names, got ["a","a"]'],
    [[matrix, { ...good, attributes: [] }], 'features: attributes must be different names, got []'],
    [[matrix, { ...good, labels: new Float32Array(5) }], /labels must be \[3, 2\], one for each of the 3 rows, got 5/],
    [
      [matrix, { ...good, rowIndex: Uint32Array.of(0, 1) }],
      /labels must be \[2, 2\], as rowIndex has 2 entries, got 6/,
    ],
    [[matrix, { ...good, rowIndex: Uint32Array.of(0, 3, 1) }], /rowIndex must be below the 3 rows .*, entry 1 is 3$/],
    [[matrix, { ...good, weights: new Float32Array(2) }], 'features: weights must be [3], one for each label, got 2'],
    [
      [matrix, { ...good, weights: Float32Array.of(1, -1, 1) }],
      /weights must be finite and at least 0, entry 1 is -1$/,
    ],
    [[matrix, { ...good, weights: new Float32Array(3) }], /labels of "one" all have weight 0/],
    [[matrix, { ...good, labels: nan }], /labels of "two" are all missing/],
    [[matrix, { ...good, labels: nan.map((x) => x / 0) }], /labels of "one" must be finite, row 0 has Infinity/],
    [[matrix, good, { select: ['x'] }], 'features: has no labels "x" (--labels), it has "one", "two"'],
  ]
  for (const [args, message] of cases) await fails(async () => makeProblem(...args), message)
  const data = matrix.data.slice()
  data[3] = Number.NaN
  const hole = makeProblem({ ...matrix, data }, good)
  const finite = 'features: features must be finite, row 1, column 1 is NaN'
  await fails(() => fitHeads(hole, { levels: [0.5] }), finite)
  await fails(() => fitRidge(hole, { threads: 1, validation: 0.5 }), finite)
  await fails(() => fitHeads(makeProblem(matrix, good), { levels: [0.5, 0.25] }), /levels: must increase/)
})

const withoutTimes = ({ weight, bias, alphas, metadata, fits }: FittedHeads) => ({
  ...{ weight, bias, alphas, metadata },
  fits: fits.map(({ ms, ...fit }) => fit),
})

/** Fits until `cut` levels are finished; the store keeps them in `files`. */
async function cutAt(problem: Problem, options: HeadsOptions, cut: number, files: Map<string, Uint8Array>) {
  const controller = new AbortController()
  let kept = 0
  await fitHeads(problem, {
    ...options,
    store: memoryStore('kept', files),
    signal: controller.signal,
    onProgress: ({ done }) => done === cut && controller.abort(new Error('cut')),
    onKept: ({ levels }) => {
      kept = levels
    },
  }).catch((error: Error) => assert.is(error.message, 'cut'))
  return kept
}

/** Goes on to the end; `chosen` hears of attributes whose penalties are chosen. */
async function goOn(
  problem: Problem,
  options: HeadsOptions,
  files: Map<string, Uint8Array>,
  chosen = new Set<string>(),
) {
  const heads = await fitHeads(problem, {
    ...options,
    store: memoryStore('kept', files),
    onProgress: ({ attribute, choice }) => choice && chosen.add(attribute),
  })
  await heads.end()
  assert.equal([...files.keys()], [], 'nothing is left')
  return withoutTimes(heads)
}

test('a fit that is cut after any level goes on to the same bits', async () => {
  // The first is for the interior point method, the second for the proximal Newton method.
  for (const [rows, columns, method] of [
    [60, 5, 'interior point'],
    [2000, 110, 'proximal newton'],
  ] as const) {
    const problem = problemOf(rows, columns)
    for (const intercept of [false, true]) {
      const options = { levels: [0.1, 0.3, 0.5, 0.9], alpha: 0.01, intercept }
      const expected = withoutTimes(await fitHeads(problem, options))
      assert.ok(expected.fits.every((fit) => fit.method === method))
      for (let cut = 1; cut <= 8; cut++) {
        const files = new Map<string, Uint8Array>()
        assert.is(await cutAt(problem, options, cut, files), cut)
        assert.equal(await goOn(problem, options, files), expected, `cut ${cut}`)
      }
    }
  }
})

test('a penalty that was chosen is kept with the levels, and levels that hold each other together', async () => {
  const problem = problemOf(60, 5)
  for (const options of [
    { levels: [0.2, 0.5, 0.7], alpha: 'auto' as const },
    { levels: [0.2, 0.5, 0.7], nonCrossing: true },
  ]) {
    const expected = withoutTimes(await fitHeads(problem, options))
    for (const cut of [1, 3, 4, 6]) {
      const files = new Map<string, Uint8Array>()
      const kept = await cutAt(problem, options, cut, files)
      assert.is(kept, options.nonCrossing ? 3 * Math.floor(cut / 3) : cut)
      const parts = [...files.keys()].filter((name) => name !== WORK_FILE)
      const chosen = new Set<string>()
      assert.equal(await goOn(problem, options, files, chosen), expected)
      assert.equal([...chosen], options.alpha && cut <= 3 ? ['two'] : [], 'choices made again')
      const level = (first: number, end: number) => `levels-00000${first}-00000${end}.part`
      const choices = ['alpha-000000.part', 'alpha-000001.part'].slice(0, cut > 3 ? 2 : 1)
      if (options.alpha) assert.equal(parts.sort(), [...choices, level(0, cut)])
      else assert.equal(parts.sort(), cut < 3 ? [] : [level(0, cut < 6 ? 3 : 6)])
    }
  }
})

test('a damaged part is named, and its levels alone are fitted again, with the same bits', async () => {
  const problem = problemOf(60, 5)
  const options = { levels: [0.1, 0.3, 0.5, 0.9], alpha: 'auto' as const, intercept: true }
  const { weight, bias, alphas } = await fitHeads(problem, options)
  const made = new Map<string, Uint8Array>()
  for (const cut of [2, 3, 6, 7]) await cutAt(problem, options, cut, made)
  const parts = [...made.keys()].filter((name) => name.endsWith('.part')).sort()
  assert.equal(
    parts.map((name) => name.replaceAll('00000', '')),
    ['alpha-0.part', 'alpha-1.part', 'levels-0-2.part', 'levels-2-3.part', 'levels-3-6.part', 'levels-6-7.part'],
  )
  for (const part of parts) {
    const [, first, end] = /levels-(\d+)-(\d+)/.exec(part) ?? []
    const bits = 8 * made.get(part)!.length
    for (let bit = 5; bit < bits; bit += Math.ceil(bits / 5)) {
      const files = new Map(made)
      const flipped = made.get(part)!.slice()
      flipped[bit >> 3] ^= 1 << (bit & 7)
      files.set(part, flipped)
      const notes: string[] = []
      let fitted = 0
      const heads = await fitHeads(problem, {
        ...options,
        store: memoryStore('kept', files),
        onNote: (line) => notes.push(line),
        onProgress: ({ level }) => {
          if (level && 'objective' in level) fitted++
        },
      })
      assert.equal(notes, [`kept/${part} is damaged; it is set aside as ${part}.damaged and made again`])
      assert.equal([heads.weight, heads.bias, heads.alphas], [weight, bias, alphas], `${part}, bit ${bit}`)
      const lost = first === undefined ? 0 : Number(end) - Number(first)
      assert.is(fitted, 1 + lost, `${part}: levels fitted`)
      assert.equal([...files.get(`${part}.damaged`)!], [...flipped])
    }
  }
})

test('the store knows its problem and its options', async () => {
  const problem = problemOf(60, 5)
  const files = new Map<string, Uint8Array>()
  const options = { levels: [0.5], store: memoryStore('kept', files) }
  await fitHeads(problem, options)
  const other = problem.labels.slice()
  other[7] += 1
  const { attributes } = problem
  const data = (await problem.features.read(0, 60)) as Float32Array
  const changed = data.slice()
  changed[299] += 1
  const cases: [Problem, Partial<HeadsOptions>, RegExp][] = [
    [problem, { levels: [0.25, 0.5] }, /--levels \[0\.5\], now it is \[0\.25,0\.5\]; use the same, or give --restart/],
    [problem, { intercept: true }, /--intercept false, now it is true/],
    [problem, { alpha: 'auto' }, /--alpha 0\.003, now it is "auto"/],
    [problem, { nonCrossing: true }, /--non-crossing false, now it is true/],
    [makeProblem(problem.features, { attributes, labels: other }), {}, /labels with the SHA-256 "[0-9a-f]{64}"/],
    [makeProblem({ data: changed, rows: 60, columns: 5 }, problem), {}, /features with the SHA-256 "[0-9a-f]{64}"/],
    [makeProblem(problem.features, problem, { select: ['two'] }), {}, /--labels \["one","two"\], now it is \["two"\]/],
  ]
  for (const [given, change, message] of cases)
    await fails(
      () => fitHeads(given, { ...options, ...change }),
      new RegExp(`^kept/${WORK_FILE}: was begun with ${message.source}`),
    )
  const [before] = [...files.keys()].filter((name) => name.endsWith('.part'))
  const heads = await fitHeads(problem, { ...options, levels: [0.25], restart: true })
  assert.equal(
    heads.fits.map(({ level }) => level),
    [0.25, 0.25],
  )
  assert.ok(files.has(before))
  // Nothing was done, so nothing is left.
  const empty = new Map<string, Uint8Array>()
  const signal = AbortSignal.abort(new Error('at once'))
  await fails(() => fitHeads(problem, { levels: [0.5], store: memoryStore('kept', empty), signal }), 'at once')
  assert.is(empty.size, 0)
})

test('a store that cannot be written is reported once, and the fit goes on', async () => {
  const problem = problemOf(60, 5)
  const store = memoryStore('kept')
  const write = async (file: string, chunks: Parameters<typeof store.write>[1]) => {
    if (file !== WORK_FILE) throw new Error('kept: no space left on the disk')
    await store.write(file, chunks)
  }
  const notes: string[] = []
  const heads = await fitHeads(problem, {
    levels: [0.5],
    store: { ...store, write },
    onNote: (line) => notes.push(line),
  })
  assert.equal(notes, ['kept: no space left on the disk; what is finished now is not kept'])
  assert.equal(heads.weight, (await fitHeads(problem, { levels: [0.5] })).weight)
  await heads.end()
  const settings = { '--levels': [0.5] }
  const work = await openWork({ ...store, write }, { command: 'fit', settings, partNames: PART_NAMES })
  const finished = { weight: heads.weight, bias: null, fits: [...heads.fits], alphas: [null, null] }
  const keeper = keepFinished(work, finished, (line) => notes.push(line))
  for (const output of [0, 1]) {
    keeper.levels(output, output + 1)
    await keeper.save()
  }
  assert.is(notes.length, 2)
})

test.run()
