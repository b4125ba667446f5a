// The command train-rm: pairs to an adapter or a model that scores, ratings to quantile heads, interrupts, and what is refused.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { each, finish, lines, openWorkplace, root, tensor, WASM, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
  await place.file('pairs.jsonl', PAIRS)
  await place.file('texts.jsonl', TEXTS)
  await place.file('ratings.jsonl', RATINGS)
})
test.after(() => place.remove())

/** A causal model without a tokenizer, and a reward model with one. */
const CAUSAL = join(root, 'test/fixtures/lora/untied/model')
const NANO = join(root, 'models/nano')
const NEW = ['--rank', '2', '--alpha', '4', '--batch', '2']
const SMALL = [...NEW, ...WASM]
const draw = random(9)
const ids = (count: number) => Array.from(draw.uniform(count), (value) => Math.floor(65 * (value + 1)))
const PAIRS = lines(
  ...Array.from({ length: 6 }, (_, i) => {
    const prompt = ids(20)
    const [chosen, rejected] = [ids(2 + i), ids(9 - i)].map((answer) => [...prompt, ...answer])
    return { chosen_input_ids: chosen, rejected_input_ids: rejected, margin: i / 10 }
  }),
)
const CHOSEN = lines(
  ...PAIRS.trim()
    .split('\n')
    .map((line) => ({ input_ids: JSON.parse(line).chosen_input_ids })),
)
const TEXTS = lines(
  { prompt: 'Is the film good?', chosen: 'Yes, it is a delight.', rejected: 'No.' },
  { prompt: 'Which way is north?', chosen: 'Up on most maps.', rejected: 'I will not tell. '.repeat(40) },
  { chosen: 'Human: Hi\n\nAssistant: Hello there.', rejected: 'Human: Hi\n\nAssistant: Go away.' },
)
const RATINGS = lines(
  ...Array.from({ length: 8 }, (_, i) => ({
    prompt: `Question ${i}?`,
    response: 'good '.repeat(i + 1),
    kind: i % 3 === 0 ? [i, i + 1, null] : i,
    clear: i % 2 === 0 ? null : -i,
  })),
  { prompt: 'Nobody has rated this.', response: 'Right.', kind: null },
)

// biome-ignore lint/suspicious/noExplicitAny: documents of several commands, whose fields are what is tested
async function run(...args: string[]): Promise<any> {
  const { code, out, err } = await place.pinball([...args, '--json'])
  assert.is(code, 0, err)
  return JSON.parse(out)
}

const bytes = (folder: string, file: string) => readFile(join(place.folder, folder, file))

test('pairs to an adapter; the same command does nothing more, and after SIGTERM it goes on with the same bits', async () => {
  const train = ['train-rm', '--model', CAUSAL, '--data', 'pairs.jsonl', '--eval', '0.3', '--epochs', '300', ...SMALL]
  const found = await run(...train, '--out', 'straight', '--save-steps', '200')
  assert.equal([found.pairs, found.held, found.steps, found.dropped], [4, 2, 600, 0])
  assert.ok(found.loss < 0.2 && found.eval_loss > 0 && found.eval_accuracy <= 1)
  const config = JSON.parse(String(await bytes('straight', 'adapter_config.json')))
  assert.equal([config.task_type, config.modules_to_save], ['SEQ_CLS', ['classifier', 'score']])
  const log = String(await bytes('straight', 'log.jsonl'))
  const [first] = log.split('\n').map((line) => line && JSON.parse(line))
  assert.equal(
    Object.keys(first),
    'step epoch loss accuracy margin mean_reward min_reward max_reward grad_norm learning_rate num_tokens'.split(' '),
  )
  assert.equal(Object.keys(JSON.parse(log.trim().split('\n').at(-1)!)), [
    ...['step', 'epoch', 'eval_loss', 'eval_accuracy', 'eval_margin'],
  ])
  const scores = async (...model: string[]) => {
    const { code, out, err } = await place.pinball(['score', ...model, '--input', '-', '--json', ...WASM], CHOSEN)
    assert.is(code, 0, err)
    return JSON.parse(out).results.map(({ score }: { score: number }) => score) as number[]
  }
  await run('merge', '--model', CAUSAL, '--adapter', 'straight', '--out', 'straight-merged')
  const whole = await scores('--model', 'straight-merged')
  for (const [i, score] of (await scores('--model', CAUSAL, '--adapter', 'straight')).entries())
    assert.ok(Math.abs(score - whole[i]) < 1e-5 * Math.max(1, Math.abs(score)), `${score}, ${whole[i]}`)

  const again = await place.pinball([...train, '--out', 'straight', '--save-steps', '200'])
  assert.is(again.code, 0)
  assert.match(again.err, /straight holds this training, finished/)

  const child = place.launch([...train, '--out', 'cut', '--save-steps', '200'])
  const ended = finish(child)
  while (child.exitCode === null) {
    const entries = await readdir(join(place.folder, 'cut')).catch((): string[] => [])
    if (entries.includes('checkpoint-200')) break
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  child.kill('SIGTERM')
  const { code, err } = await ended
  assert.is(code, 143, err)
  assert.match(err, /interrupted; step \d+ is saved in cut; the same command goes on from there/)
  await run(...train, '--out', 'cut', '--save-steps', '200')
  for (const file of ['adapter_model.safetensors', 'adapter_config.json', 'log.jsonl', 'training.json'])
    assert.equal(await bytes('cut', file), await bytes('straight', file), file)
})

test('texts to a whole model that scores as the adapter was trained to; too long pairs are left out', async () => {
  await run('train-rm', '--model', CAUSAL, '--data', 'pairs.jsonl', '--merge', '--out', 'merged', ...SMALL)
  const scored = await place.pinball(['score', '--model', 'merged', '--input', '-', '--json', ...WASM], CHOSEN)
  assert.is(scored.code, 0, scored.err)
  const train = ['train-rm', '--model', NANO, '--data', 'texts.jsonl', '--max-length', '64', ...SMALL]
  const { code, err, out } = await place.pinball([...train, '--out', 'texts', '--json'])
  assert.is(code, 0, err)
  assert.match(err, /rows of more than 64 tokens are left out: 1/)
  const { pairs, dropped, num_tokens } = JSON.parse(out)
  assert.equal([pairs, dropped], [2, 1])
  assert.ok(num_tokens > 40 && num_tokens < 4 * 64)
})

test('ratings to quantile heads; merge and assemble make a model, which eval measures', async () => {
  const train = ['train-rm', '--model', NANO, '--data', 'ratings.jsonl', '--head', 'quantile', '--epochs', '2', ...WASM]
  const found = await run(
    ...train,
    ...NEW,
    '--attributes',
    'kind,clear',
    '--levels',
    '3',
    '--intercept',
    '--out',
    'quantiles',
  )
  assert.equal([found.rows, found.ratings, found.steps], [8, 8 + 3 + 4, 8])
  await run('merge', '--model', NANO, '--adapter', 'quantiles', '--out', 'backbone')
  await run('assemble', '--backbone', 'backbone', '--heads', 'quantiles', '--out', 'whole')
  const measured = await run('eval', '--suite', 'calibration', '--model', 'whole', '--data', 'ratings.jsonl', ...WASM)
  assert.equal(Object.keys(measured.attributes), ['kind', 'clear'])
  const heads = ['--heads', 'quantiles/heads.safetensors']
  const onwards = await run(...train, ...heads, '--adapter', 'quantiles', '--batch', '8', '--out', 'onwards')
  assert.equal([onwards.steps, onwards.ratings], [2, found.ratings])
  const fresh = await run(
    ...[...train, '--batch', '8', '--attributes', 'kind,clear', '--levels', '3', '--intercept'],
    ...['--max-steps', '1', '--out', 'fresh'],
  )
  // Both over all rows: the loss before any step.
  const [first] = String(await bytes('onwards', 'log.jsonl')).split('\n')
  assert.ok(JSON.parse(first).loss < fresh.loss, `${first}, ${fresh.loss}`)
})

each(
  'refused:',
  [
    [
      'margin',
      '{"chosen_input_ids":[1],"rejected_input_ids":[2],"margin":"1"}',
      [],
      /input line 1: margin must be a number, got "1"/,
    ],
    [
      'margin too large',
      '{"chosen":"a","rejected":"b","margin":1e300}',
      [],
      /margin must be a number of at most 3\.4e38 in size, got 1e\+300/,
    ],
    [
      'infinite margin',
      '{"chosen":"a","rejected":"b","margin":1e999}',
      [],
      /line 1: margin must be .*, got a number beyond 1\.8e308/,
    ],
    ['one side', '{"chosen":"a"}', [], /line 1: a pair needs "chosen" and "rejected"/],
    [
      'one side of ids',
      '{"chosen_input_ids":[1]}',
      [],
      /line 1: a pair needs "chosen_input_ids" and "rejected_input_ids", this one has no "rejected_input_ids"/,
    ],
    ['text without a tokenizer', '{"chosen":"a","rejected":"b"}', [], /has no tokenizer\.json/],
    ['no rows', '', [], /has no rows/],
    [
      'too long',
      '{"chosen_input_ids":[1,2,3],"rejected_input_ids":[2]}',
      ['--max-length', '2'],
      /nothing to train on: the only row has more than 2 tokens \(.*line 1\)/,
    ],
    [
      'ids',
      '{"chosen_input_ids":[1],"rejected_input_ids":[131]}',
      [],
      /rejected_input_ids\[0\] must be a whole number from 0 to 130/,
    ],
    ['attributes', '', ['--attributes', 'a'], /--attributes: is for --head quantile/, 2],
    ['no attributes', '', ['--head', 'quantile'], /--attributes: is needed for --head quantile/, 2],
    ['reserved', '', ['--head', 'quantile', '--attributes', 'prompt'], /"prompt" is what is scored/, 2],
    ['center', '', ['--head', 'quantile', '--attributes', 'a', '--center', '0'], /--center: is for --head score/, 2],
    [
      'merge',
      '',
      ['--head', 'quantile', '--attributes', 'a', '--merge'],
      /--merge: quantile heads stand beside the adapter/,
      2,
    ],
    ['pairs for ratings', '{"chosen":"a","rejected":"b"}', ['--head', 'quantile', '--attributes', 'a'], /is a pair/],
    [
      'no such attribute',
      '{"input_ids":[1],"b":1}',
      ['--head', 'quantile', '--attributes', 'a'],
      /no row has a field "a"/,
    ],
    ['rating', '{"input_ids":[1],"a":"x"}', ['--head', 'quantile', '--attributes', 'a'], /line 1: label "a"/],
    ['no rating', '{"input_ids":[1],"a":null}', ['--head', 'quantile', '--attributes', 'a'], /1 have no rating/],
    ['own input', '', ['--out', CAUSAL], /--out/, 2],
    [
      'heads',
      '{"input_ids":[1],"a":1}',
      ['--head', 'quantile', '--heads', 'narrow.safetensors'],
      /states of \d+ columns/,
    ],
  ] as const,
  async ([name, row, args, message, code]) => {
    if (name === 'heads') {
      const weight = [tensor('regression_layer.weight', [1, 3], new Float32Array(3))]
      await place.save('narrow.safetensors', weight, { attributes: '["a"]', levels: '[0.5]' })
    }
    const out = args.includes('--out' as never) ? [] : ['--out', `refused-${name.replaceAll(' ', '-')}`]
    const all = ['train-rm', '--model', CAUSAL, '--data', '-', ...out, ...args, ...WASM]
    await place.refused(all, message, code ?? 1, row)
  },
)

test.run()
