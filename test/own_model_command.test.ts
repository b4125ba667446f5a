// pinball train and split, heads without pairs, and rows that people have, by the built command.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { finish, lines, openWorkplace, root, tensor, WASM, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
  const draw = random(8)
  const films = ['film', 'play', 'book', 'song', 'meal', 'talk']
  const words = ['great', 'lovely', 'superb', 'dull', 'awful', 'poor']
  const [pick, noise] = [draw.uniform(600), draw.normal(4000)]
  const rows = Array.from({ length: 160 }, (_, i) => {
    const [film, word] = [films[Math.floor(pick[i] * 6)], Math.floor(pick[200 + i] * 6)]
    const response = `The ${film} number ${i} was ${words[word]}.`
    const kind = Array.from({ length: i % 3 === 0 ? 9 : 3 }, (_, t) => (word < 3 ? 1 : -1) + noise[i * 9 + t])
    return {
      id: `r${i}`,
      prompt: `How was the ${film}?`,
      response,
      kind,
      verbosity: response.length / 40,
      source: 'made',
    }
  })
  await place.file('ratings.jsonl', lines(...rows))
  const pairs = Array.from({ length: 60 }, (_, i) => ({
    prompt: `How was number ${i}?`,
    chosen: `It was ${words[i % 3]}.`,
    rejected: `It was ${words[3 + (i % 3)]}.`,
  }))
  await place.file('pairs.jsonl', lines(...pairs))
})
test.after(() => place.remove())

const at = (name: string) => join(place.folder, name)

// biome-ignore lint/suspicious/noExplicitAny: documents of several commands, whose fields are what is tested
async function run(...args: string[]): Promise<any> {
  const { code, out, err } = await place.pinball([
    ...args,
    ...(args[0] === 'assemble' || args[0] === 'split' ? [] : WASM),
    '--json',
  ])
  assert.is(code, 0, err)
  return { ...JSON.parse(out), err }
}

/** Bytes of all files of a folder, by their paths. */
async function holds(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const entry of await readdir(at(folder), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    found[path.slice(at(folder).length + 1)] = (await readFile(path)).toString('base64')
  }
  return found
}

const TRAIN = [
  'train',
  '--ratings',
  'ratings.jsonl',
  '--pairs',
  'pairs.jsonl',
  '--labels',
  'kind,verbosity',
  '--levels',
  '5',
]
const own = [...TRAIN, '--hidden', '8', '--layers', '1', '--batch', '16', '--backbone', join(root, 'models/nano')]

test('train: one command to an evaluated model, again without work, after kills the same bits, and stages where something changed', async () => {
  const made = await run(...own, '--out', 'whole')
  assert.equal(made.attributes, ['kind', 'verbosity'])
  const { fit, calibrate, test: seen, pairs, test_pairs: testPairs } = made.rows
  assert.is(fit + calibrate + seen, 160)
  assert.is(pairs + testPairs, 60)
  assert.is(made.weights, 'gate')
  assert.is(made.pairs.rows, testPairs)
  assert.ok(made.calibrated.attributes.kind.gain > 0.1, `${made.calibrated.attributes.kind.gain}`)
  assert.match(made.err, 'items have different numbers of ratings of kind (3 to 9)')
  const whole = await holds('whole')
  const again = await run(...own, '--out', 'whole')
  assert.equal({ ...again, ms: 0, err: '' }, { ...made, ms: 0, err: '' })
  assert.is(again.err.match(/done already/g)?.length, 11, again.err)
  assert.equal(await holds('whole'), whole)
  const suite = ['eval', '--suite', 'pairs', '--model', 'whole/reward', '--features']
  const trained = await run(...suite, 'whole/features/pairs.safetensors')
  assert.match(trained.err, `all ${pairs} pairs to measure on are pairs that the model was trained on`)
  assert.is((await run(...suite, 'whole/features/test_pairs.safetensors')).err, '')
  // Killed when a stage is named, from the first to the last.
  for (const stage of ['features of calibrate', 'fit', 'debias', 'calibrate', 'assemble', 'evaluate']) {
    const child = place.launch([...own, ...WASM, '--out', 'cut'])
    let err = ''
    child.stderr?.on('data', (text) => {
      err += text
      if (err.includes(`train: ${stage}\n`)) child.kill('SIGKILL')
    })
    await finish(child)
  }
  await run(...own, '--out', 'cut')
  assert.equal(Object.keys(await holds('cut')), Object.keys(whole))
  assert.equal(await holds('cut'), whole)
  // Another penalty: features stay, all that stands on the heads is made anew.
  const other = await run(...own, '--alpha', '0.01', '--out', 'whole', '--restart')
  assert.is(other.err.match(/features of .*done already/g)?.length, 5)
  assert.not.match(other.err, /train: (fit|gate|calibrate|assemble|evaluate), done already/)
  const { results } = await run('score', '--model', 'whole/model', '--input', 'ratings.jsonl')
  assert.is(results[7].id, 'r7')
  assert.is(results[7].fields.source, 'made')
  assert.is(results[7].fields.kind.length, 3)
})

test('train: fixed weights without pairs, and what is refused', async () => {
  const made = await run(
    ...own.filter((arg) => arg !== '--pairs' && arg !== 'pairs.jsonl'),
    '--attribute-weights',
    'kind=1',
    '--out',
    'fixed',
  )
  assert.equal([made.weights, made.pairs], [{ kind: 1 }, null])
  assert.equal(JSON.parse(await readFile(at('fixed/model/pinball.json'), 'utf8')).weights, { kind: 1 })
  await place.file('mine/notes.txt', '').catch(() => {})
  await writeFile(at('taken.txt'), '')
  await place.refused([...own, ...WASM, '--out', 'taken.txt'], /taken\.txt/)
  await place.refused(
    [...own, '--parts', 'fit:0.5,test:0.5', '--out', 'x'],
    '--parts: must be shares of fit, calibrate, test',
    2,
  )
  await place.refused(
    [...own, ...WASM, '--debias', 'nobody', '--out', 'x'],
    /there is no attribute "nobody"; there are "kind", "verbosity"/,
  )
})

test('split: files of parts with the rows as they are, and a folder of anything else is left alone', async () => {
  const { rows } = await run('split', '--input', 'ratings.jsonl', '--out', 'parts')
  const texts = await Promise.all(Object.keys(rows).map((name) => readFile(at(`parts/${name}.jsonl`), 'utf8')))
  const input = (await readFile(at('ratings.jsonl'), 'utf8')).split('\n').filter(Boolean)
  const found = texts.flatMap((text) => text.split('\n').filter(Boolean))
  assert.equal(found.sort(), input.sort())
  const before = await holds('parts')
  await run('split', '--input', 'ratings.jsonl', '--out', 'parts')
  assert.equal(await holds('parts'), before)
  await writeFile(at('parts/mine.txt'), 'x')
  await place.refused(
    ['split', '--input', 'ratings.jsonl', '--out', 'parts'],
    'parts: must be missing, empty or hold parts of "pinball split", it has "mine.txt"; choose another --out',
  )
  await rm(at('parts'), { recursive: true })
})

test('ratings alone: fit makes a directory, files of heads are taken everywhere, a gate of one attribute is refused', async () => {
  for (const [name, seed] of [
    ['a', 1],
    ['b', 2],
  ] as const) {
    const draw = random(seed)
    const x = draw.normal(200 * 256)
    const labels = Float32Array.from({ length: 200 }, (_, i) => x[i * 256] + draw.normal(1)[0])
    const metadata = { attributes: '["kind"]' }
    await place.save(
      `${name}.safetensors`,
      [tensor('embeddings', [200, 256], x), tensor('labels', [200, 1], labels)],
      metadata,
    )
  }
  const fit = ['fit', '--features', 'a.safetensors', '--levels', '3', '--alpha', '0.05']
  const one = async (...args: string[]) => {
    const { code, err } = await place.pinball(args)
    assert.is(code, 0, err)
    return err
  }
  await one(...fit, '--out', 'reward')
  await one(...fit, '--out', 'heads.safetensors')
  const suite = ['eval', '--suite', 'calibration', '--features', 'b.safetensors', '--model']
  const coverage = async (model: string) => (await run(...suite, model)).attributes.kind.coverage
  assert.equal(await coverage('reward'), await coverage('heads.safetensors'))
  const measured = await run('eval', '--suite', 'calibration', '--features', 'a.safetensors', '--model', 'reward')
  assert.match(measured.err, 'all 200 rows to measure on are rows that the heads were fitted to')
  for (const heads of ['reward', 'heads.safetensors'])
    await run('calibrate', '--heads', heads, '--features', 'b.safetensors')
  assert.equal(
    await readFile(at('heads.calibration.safetensors')),
    await readFile(at('reward/calibration.safetensors')),
  )
  assert.equal(await coverage('reward'), await coverage('heads.safetensors'))
  const backbone = join(root, 'models/nano')
  for (const heads of ['reward', 'heads.safetensors'])
    await run('assemble', '--backbone', backbone, '--heads', heads, '--out', `${heads}-model`)
  const row = ['--prompt', 'a', '--response', 'b']
  const scored = [
    await run('score', '--model', 'reward-model', ...row),
    await run('score', '--model', 'heads.safetensors-model', ...row),
    await run('score', '--model', backbone, '--heads', 'heads.safetensors', ...row),
  ].map(({ results }) => results)
  assert.equal(scored[1], scored[0])
  assert.equal(scored[2], scored[0])
  // Fitted anew, the calibration of other heads goes; and what fit has not made stays.
  await one(...fit, '--alpha', '0.1', '--out', 'reward/')
  assert.equal((await readdir(at('reward'))).sort(), [
    'config.json',
    'fitted.safetensors',
    'model.safetensors',
    'pinball.json',
  ])
  await place.refused(
    [...fit, '--out', 'reward-model'],
    /reward-model: must be missing, empty or hold heads of "pinball fit", it has "tokenizer/,
  )
  await place.save('pairs.safetensors', [
    tensor('embeddings', [20, 2, 256], random(5).normal(20 * 2 * 256)),
    tensor('prompt_embeddings', [20, 256], random(6).normal(20 * 256)),
  ])
  await place.refused(
    ['gate', '--features', 'pairs.safetensors', '--heads', 'heads.safetensors', '--out', 'g', ...WASM],
    /heads\.safetensors: has one attribute, so that a gate has nothing to choose from; .*"pinball fit --out DIR" writes one/,
  )
  await place.refused(
    [...fit, '--attribute-weights', 'no=1', '--out', 'w'],
    /--attribute-weights: .*there is no attribute "no"; there are "kind"/,
    2,
  )
})

test('score takes the rows that other commands take, leaves out what is too long, and names utilities beyond float64', async () => {
  const row = { prompt: 'How was it?', response: 'Fine.' }
  const list = JSON.stringify(
    [
      { ...row, id: 1 },
      { ...row, id: 2 },
    ],
    null,
    2,
  )
  const { code, out } = await place.pinball(['score', '-', '--json', ...WASM], list)
  assert.is(code, 0)
  assert.equal(
    JSON.parse(out).results.map(({ id }: { id: number }) => id),
    [1, 2],
  )
  await place.file('long.jsonl', lines(row, { ...row, response: 'word '.repeat(300), id: 'x' }, { prompt: 'a' }))
  const found = await run('score', '--input', 'long.jsonl', '--max-length', '100', '--skip-invalid')
  assert.is(found.results.length, 1)
  assert.match(found.err, /long\.jsonl line 2: the row has \d+ tokens, --max-length allows 100/)
  assert.match(found.err, 'long.jsonl line 3: a row needs "prompt" and "response"')
  await place.refused(
    ['score', '--input', 'long.jsonl', '--max-length', '100', ...WASM],
    /line 2: the row has \d+ tokens, --max-length/,
  )
  await place.refused(
    ['score', '-', ...WASM],
    /line 1: is a pair of "chosen" and "rejected"/,
    1,
    lines({ prompt: 'a', chosen: 'b', rejected: 'c' }),
  )
  const draw = random(3).normal(256)
  await place.save(
    'low.safetensors',
    [tensor('regression_layer.weight', [1, 256], draw), tensor('regression_layer.bias', [1], Float32Array.of(-900))],
    { attributes: '["low"]', levels: '[0.5]' },
  )
  const model = join(root, 'models/nano')
  const far = await run(
    'score',
    '--model',
    model,
    '--heads',
    'low.safetensors',
    '--lambda',
    '5',
    '--prompt',
    'a',
    '--response',
    'b',
  )
  assert.is(far.results[0].utility, null)
  assert.match(far.err, 'the utility of row 1 is beyond float64')
})

test.run()
