// pinball sft as a user runs it: rows of every form, what it writes, ends by signals and kills, and everything it refuses.
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { each, finish, lines, openWorkplace, root, WASM, type Workplace } from './command.ts'
import { random } from './random.ts'

let place: Workplace
test.before(async () => {
  place = await openWorkplace()
  await place.file('rows.jsonl', lines(...ROWS))
  await place.file('held.jsonl', lines(...ROWS.slice(0, 5)))
  await place.file('texts.jsonl', lines(...TEXTS))
})
test.after(() => place.remove())

/** 131 tokens, an output layer of its own, no tokenizer. */
const TINY = join(root, 'test/fixtures/lora/untied/model')
const TINY_ADAPTER = join(root, 'test/fixtures/lora/untied/adapter')
/** A tokenizer, and the embedding as output layer. */
const NANO = join(root, 'models/nano')

const draw = random(7)
const ROWS = Array.from({ length: 22 }, (_, i) => {
  const input_ids = Array.from(draw.uniform(4 + ((7 * i) % 30)), (u) => Math.floor(Math.abs(u) * 131) % 131)
  return { input_ids, labels: input_ids.map((id, t) => (t < 2 ? -100 : id)) }
})
const MESSAGES = [
  { role: 'user', content: 'How was the film?' },
  { role: 'assistant', content: 'A delight.' },
]
const TEXTS = [
  { messages: [...MESSAGES, { role: 'user', content: 'And the music?' }, { role: 'assistant', content: 'Dull.' }] },
  { prompt: 'How was the film?', response: 'A delight.' },
  { prompt: 'The film was', completion: ' a delight.' },
  { prompt: [MESSAGES[0]], completion: [MESSAGES[1]] },
  { chosen: '\n\nHuman: How was the film?\n\nAssistant: A delight.' },
  { input_ids: [5, 6, 7], labels: [-100, 6, 7] },
]

const SMALL = ['--rank', '2', '--alpha', '4', ...WASM]
const tiny = (out: string, ...more: string[]) => [
  'sft',
  ...['--model', TINY, '--data', 'rows.jsonl', '--out', out],
  ...SMALL,
  ...more,
]

/** All files of a training but the event file, by name; of folders too. */
async function filesOf(out: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for (const entry of await readdir(join(place.folder, out), { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile() && !entry.name.includes('tfevents')) {
      files[path.slice(join(place.folder, out).length + 1)] = (await readFile(path)).toString('latin1')
    }
  }
  return files
}

const logOf = async (out: string) =>
  (await readFile(join(place.folder, out, 'log.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>)

test('a training writes an adapter, a log, curves, checkpoints and all settings', async () => {
  const more = ['--batch', '4', '--eval', '0.2', '--eval-steps', '2', '--save-steps', '1', '--warmup', '0.4', '--json']
  const { code, out, err } = await place.pinball(tiny('first', ...more))
  assert.equal([code, err], [0, ''])
  const report = JSON.parse(out)
  assert.equal(Object.keys(report), [
    ...['rows', 'held', 'sequences', 'steps', 'parameters', 'num_tokens', 'loss', 'eval_loss'],
    ...['dropped', 'out', 'ms', 'tokens_per_second'],
  ])
  assert.equal([report.rows, report.held, report.sequences, report.steps, report.dropped], [18, 4, 18, 5, 0])
  assert.ok(report.tokens_per_second > 0)
  const names = Object.keys(await filesOf('first'))
  assert.equal(names.filter((name) => !name.includes('/')).sort(), [
    ...['adapter_config.json', 'adapter_model.safetensors', 'log.jsonl', 'training.json'],
  ])
  for (const step of [3, 4, 5]) assert.ok(names.includes(`checkpoint-${step}/adapter_model.safetensors`))
  assert.not(names.some((name) => name.startsWith('checkpoint-2')))
  const log = await logOf('first')
  const steps = log.filter((entry) => 'loss' in entry)
  assert.equal(Object.keys(steps[0]), [
    ...['step', 'epoch', 'loss', 'grad_norm', 'learning_rate', 'num_tokens', 'mean_token_accuracy', 'entropy'],
  ])
  assert.equal(
    log.filter((entry) => 'eval_loss' in entry).map(({ step }) => step),
    [2, 4, 5],
  )
  // Two steps of warm-up: 0, then half of the peak.
  assert.equal([steps[0].learning_rate, steps[1].learning_rate, steps[2].learning_rate], [0, 1.5e-4, 3e-4])
  assert.is(steps.at(-1)!.num_tokens, report.num_tokens)
  const { settings, record, result } = JSON.parse(await readFile(join(place.folder, 'first/training.json'), 'utf8'))
  const told = { '--lr': 3e-4, '--schedule': 'cosine', '--warmup': 0.4, '--weight-decay': 0, '--max-grad-norm': 1 }
  const usual = { '--micro-batch': null, '--epochs': 1, '--max-steps': null, '--max-length': 1024, '--packing': false }
  const others = { '--rank': 2, '--alpha': 4, '--targets': 'all-linear', '--dropout': 0, '--batch': 4, '--seed': 0 }
  for (const [name, value] of Object.entries({ ...told, ...usual, ...others })) assert.is(settings[name], value, name)
  assert.equal(record, {
    ...{ '--model': TINY, '--data': 'rows.jsonl', '--adapter': null, '--eval': 0.2 },
    ...{ '--loss': 'completion', '--checkpointing': false, '--save-steps': 1 },
  })
  assert.is(result.eval_loss, report.eval_loss)
  const config = JSON.parse(await readFile(join(place.folder, 'first/adapter_config.json'), 'utf8'))
  assert.equal([config.base_model_name_or_path, config.task_type, config.r], [TINY, 'CAUSAL_LM', 2])
  const again = await place.pinball(tiny('first', ...more))
  assert.match(again.err, /^pinball: sft: first holds this training, finished; --restart begins it anew\n$/)
  assert.is(JSON.parse(again.out).loss, report.loss)
  await place.refused(
    tiny('first', ...more, '--lr', '1e-3'),
    /training\.json: holds a training with --lr 0\.0003, now it is 0\.001/,
  )
  // Begun anew, checkpoints of the one before do not stand in the way.
  const anew = await place.pinball(tiny('first', ...more, '--lr', '1e-3', '--restart'))
  assert.equal([anew.code, anew.err], [0, ''])
  assert.is.not(JSON.parse(anew.out).loss, report.loss)
})

test('rows of every form are learned from, and the table for people says what was done', async () => {
  const args = ['sft', '--model', NANO, '--data', 'texts.jsonl', ...SMALL, '--max-steps', '1']
  const { code, out, err } = await place.pinball([...args, '--out', 'texts'])
  assert.equal([code, err], [0, ''])
  assert.match(out, /^texts: \d+ parameters, 1 step on 6 rows, loss \d\.\d{4}\n$/)
  const [completion] = await logOf('texts')
  await place.pinball([...args, '--out', 'all', '--loss', 'all'])
  const [all] = await logOf('all')
  assert.is(all.num_tokens, completion.num_tokens)
  assert.is.not(all.loss, completion.loss)
  const stdin = await place.pinball(
    ['sft', '--model', NANO, '--data', '-', '--out', 'stdin', ...SMALL, '--max-steps', '1'],
    lines(...TEXTS),
  )
  assert.is(stdin.err, '')
  assert.equal(await logOf('stdin'), await logOf('texts'))
})

test('rows that are too long are dropped and counted, with --eval too; packing counts sequences', async () => {
  const long = ROWS.filter(({ input_ids }) => input_ids.length > 20).length
  const heldLong = ROWS.slice(0, 5).filter(({ input_ids }) => input_ids.length > 20).length
  assert.ok(long > 2 && heldLong > 0)
  const args = tiny('short', '--max-length', '20', '--eval', 'held.jsonl', '--packing', '--batch', '2', '--json')
  const { out, err } = await place.pinball(args)
  const report = JSON.parse(out)
  assert.is(err, `pinball: sft: note: rows of more than 20 tokens are left out: ${long + heldLong}\n`)
  assert.equal([report.dropped, report.rows, report.held], [long + heldLong, ROWS.length - long, 5 - heldLong])
  assert.ok(report.sequences < report.rows)
  assert.is(report.steps, Math.ceil(report.sequences / 2))
})

test('--no-shuffle keeps the order; a seed changes it; --adapter goes on', async () => {
  const run = async (out: string, ...more: string[]) => {
    const { err } = await place.pinball(tiny(out, '--batch', '4', '--max-steps', '2', ...more))
    assert.is(err, '')
    return logOf(out)
  }
  const [kept] = await run('kept', '--no-shuffle')
  const tokens = ROWS.slice(0, 4).reduce((sum, { input_ids }) => sum + input_ids.length, 0)
  assert.is(kept.num_tokens, tokens)
  const shuffled = await run('shuffled')
  assert.is.not(shuffled[0].num_tokens, tokens)
  assert.is.not((await run('seeded', '--seed', '5'))[0].num_tokens, shuffled[0].num_tokens)
  const args = ['sft', '--model', TINY, '--data', 'rows.jsonl', ...WASM, '--max-steps', '1', '--json']
  const on = await place.pinball([...args, '--adapter', TINY_ADAPTER, '--out', 'on'])
  assert.is(on.err, '')
  const config = JSON.parse(await readFile(join(place.folder, 'on/adapter_config.json'), 'utf8'))
  assert.is(config.r, 4, 'the rank is that of the adapter')
  await place.refused(
    [...args, '--adapter', TINY_ADAPTER, '--out', 'on', '--rank', '4'],
    '--rank: is for a new adapter; that of --adapter has its own',
    2,
  )
})

const LONG = ['--batch', '4', '--epochs', '20', '--save-steps', '3', '--eval', 'held.jsonl', '--eval-steps', '5']

test('killed and interrupted at any step, the same command gives the same files', async () => {
  const whole = await place.pinball(tiny('whole', ...LONG))
  assert.is(whole.code, 0, whole.err)
  const wanted = await filesOf('whole')
  const chance = random(Date.now())
  // Of 120; the last kills come well before the end.
  const steps = 80
  for (const signals of [
    ['SIGKILL', 'SIGINT', 'SIGTERM', 'SIGKILL'],
    ['SIGTERM', 'SIGKILL', 'SIGINT'],
  ] as const) {
    const out = `cut-${signals.length}`
    for (const [i, signal] of signals.entries()) {
      // A process that has not made a step of its own may not have its handlers yet.
      const from = await lastStep(out)
      const until = Math.max(
        from + 1,
        Math.floor(((i + Math.abs(chance.uniform(1)[0])) / (signals.length + 1)) * steps),
      )
      const child = place.launch(tiny(out, ...LONG))
      const ended = finish(child)
      while (child.exitCode === null && (await lastStep(out)) < until) await pause(2)
      child.kill(signal)
      const { code, err } = await ended
      const told = `${signal} from step ${until}: ${code} ${err}`
      assert.is(code, signal === 'SIGKILL' ? null : signal === 'SIGINT' ? 130 : 143, told)
      if (signal !== 'SIGKILL')
        assert.match(err, /sft: interrupted; step \d+ is saved in cut-\d; the same command/, told)
    }
    const { code, err } = await place.pinball(tiny(out, ...LONG))
    assert.is(code, 0, err)
    const found = await filesOf(out)
    assert.equal(Object.keys(found).sort(), Object.keys(wanted).sort())
    for (const [name, content] of Object.entries(wanted)) assert.ok(found[name] === content, `${out}/${name} differs`)
  }
})

/** The last step that the log has, or a state. */
async function lastStep(out: string): Promise<number> {
  const names = await readdir(join(place.folder, out)).catch(() => [])
  return Math.max(0, ...names.map((name) => Number(/^state-(\d+)\.part$/.exec(name)?.[1] ?? 0)))
}

test('an interrupt before the first step leaves what the same command goes on from', async () => {
  const child = place.launch(tiny('early', ...LONG))
  const ended = finish(child)
  while (child.exitCode === null && !(await readdir(join(place.folder, 'early')).catch(() => [])).length) await pause(2)
  child.kill('SIGINT')
  const { code } = await ended
  assert.is(code, 130)
  assert.is((await place.pinball(tiny('early', ...LONG))).code, 0)
  assert.ok((await filesOf('early'))['log.jsonl'] === (await filesOf('whole'))['log.jsonl'])
})

const bad = (row: unknown) => lines(ROWS[0], row)

each<readonly [string, string | ((name: string) => string), RegExp, string?]>(
  'rows that are refused:',
  [
    ['no rows', '', /: has no rows/],
    ['no JSON', '{"input_ids"', /line 1/],
    ['no object', '[1]\n3\n', /must be an object/],
    ['no form', bad({ text: 'x' }), /line 2: a row needs "messages"/],
    [
      'nothing to learn',
      bad({ input_ids: [1, 2], labels: [-100, -100] }),
      /line 2: nothing can be learned from a row of 2/,
    ],
    ['the first token alone', bad({ input_ids: [1, 2], labels: [1, -100] }), /line 2: nothing can be learned/],
    [
      'labels of another length',
      bad({ input_ids: [1, 2], labels: [1] }),
      /line 2: labels must be as many as input_ids, 2, got 1/,
    ],
    [
      'a label outside',
      bad({ input_ids: [1, 2], labels: [-100, 131] }),
      /line 2: labels\[1\] must be -100 or .* 130 \(vocab_size\), got 131/,
    ],
    ['a label below', bad({ input_ids: [1, 2], labels: [-100, -1] }), /line 2: labels\[1\] must be -100/],
    ['an id outside', bad({ input_ids: [1, 131], labels: [-100, 1] }), /line 2: input_ids\[1\] must be .* got 131/],
    ['no labels', bad({ input_ids: [1, 2] }), /line 2: a row with "input_ids" needs "labels"/],
    ['text without a tokenizer', bad({ prompt: 'a', response: 'b' }), /line 2: .* has no tokenizer\.json/],
    ['only long rows', lines(ROWS[5], ROWS[9]), /nothing to train on: all 2 rows have more than 2 tokens/, '2'],
    [
      'messages that end with the user',
      bad({ messages: MESSAGES.slice(0, 1) }),
      /line 2: messages must end with role "assistant", got "user"/,
      'nano',
    ],
    [
      'a completion that ends with the user',
      bad({ prompt: [MESSAGES[0]], completion: [MESSAGES[0]] }),
      /line 2: completion must end with/,
      'nano',
    ],
    [
      'text and messages',
      bad({ prompt: 'a', completion: [MESSAGES[1]] }),
      /line 2: prompt and completion must be two texts or two lists/,
      'nano',
    ],
    [
      'completion and response',
      bad({ prompt: 'a', completion: 'b', response: 'c' }),
      /line 2: a row has "completion"/,
      'nano',
    ],
    ['a chosen text without turns', bad({ chosen: 'A delight.' }), /line 2: chosen must be a text of "Human:"/, 'nano'],
  ],
  async ([, text, message, which], i) => {
    const name = await place.file(`bad-${i}.jsonl`, text as string)
    const length = which && which !== 'nano' ? ['--max-length', which] : []
    const model = which === 'nano' ? NANO : TINY
    await place.refused(['sft', '--model', model, '--data', name, '--out', `bad-${i}`, ...SMALL, ...length], message)
    assert.equal(await readdir(join(place.folder, `bad-${i}`)).catch(() => []), [], 'nothing is left')
  },
)

each<readonly [string, string, RegExp]>(
  'options that are refused:',
  [
    ['--lr', 'NaN', /Must be a number above 0/],
    ['--lr', '0', /Must be a number above 0/],
    ['--rank', '0', /whole number from 1/],
    ['--alpha', '-1', /above 0/],
    ['--dropout', '1', /from 0 to below 1/],
    ['--targets', 'q_proj,lm_head', /all-linear, or some of q_proj/],
    ['--targets', 'q_proj,q_proj', /none twice/],
    ['--schedule', 'step', /Allowed choices/],
    ['--warmup', '-1', /of at least 0/],
    ['--max-grad-norm', 'Infinity', /of at least 0/],
    ['--batch', '0', /whole number/],
    ['--micro-batch', '1.5', /whole number/],
    ['--epochs', '0', /whole number/],
    ['--max-steps', '0', /whole number/],
    ['--eval', '1', /above 0 and below 1, or a file name/],
    ['--eval', '', /must be a file name or a share/],
    ['--eval-steps', '5', /--eval-steps: needs --eval/],
    ['--loss', 'some', /Allowed choices/],
    ['--out', TINY, /must not be what --model reads/],
    ['--out', '.', /must not be what --data reads/],
    ['--data', '', /must be a file name/],
  ],
  async ([option, value, message]) => {
    const args = tiny('options', option, value)
    await place.refused(args, message, 2)
  },
)

test('models and folders that are refused', async () => {
  const args = (model: string, out: string) => ['sft', '--model', model, '--data', 'rows.jsonl', '--out', out, ...SMALL]
  await place.refused(args('nowhere', 'x'), 'nowhere: no such directory')
  await place.refused(args('.', 'x'), /config\.json: is missing/)
  const reward = join(root, 'test/fixtures/lora/reward')
  // Token 0 is that model's padding.
  await place.refused(
    args(join(reward, 'model'), 'x'),
    /rows\.jsonl line \d+: input_ids\[\d+\] is padding \(token 0\); give rows/,
  )
  await place.file('few.jsonl', lines({ input_ids: [1, 2, 3], labels: [1, 2, 3] }))
  await place.refused(
    ['sft', '--model', join(reward, 'model'), '--data', 'few.jsonl', '--out', 'x', ...SMALL],
    /lm_head\.weight is missing; fine-tuning needs a causal model/,
  )
  // A causal model of the sizes of the classifier, and one of others.
  const causal = join(root, 'test/fixtures/lora/q8_0/model')
  for (const [model, message] of [
    [causal, /is an adapter of a classifier; fine-tuning needs a causal one/],
    [TINY, /lora_B\.weight" must be \[4, 4\] by adapter_config\.json and the base, got \[16, 4\]/],
  ] as const) {
    const more = ['--adapter', join(reward, 'adapter'), ...WASM]
    await place.refused(['sft', '--model', model, '--data', 'rows.jsonl', '--out', 'x', ...more], message)
  }
  await place.refused(
    ['sft', '--model', TINY, '--data', 'rows.jsonl', '--out', 'x', ...WASM, '--adapter', '.'],
    /adapter_config\.json: is missing/,
  )
  await mkdir(join(place.folder, 'taken'))
  await writeFile(join(place.folder, 'taken/mine'), 'mine')
  await place.refused(args(TINY, 'taken'), /taken: must be missing, empty or hold work of "sft", it has "mine"/)
  assert.is(await readFile(join(place.folder, 'taken/mine'), 'utf8'), 'mine')
  // A folder in that of the model is none of its files, when it is there already too.
  await cp(TINY, join(place.folder, 'base'), { recursive: true })
  for (const message of ['', /holds this training, finished/]) {
    const { code, err } = await place.pinball([...args('base', 'base/sft'), '--max-steps', '1'])
    assert.is(code, 0, err)
    assert.match(err, message)
  }
  // An adapter that is gone on with may not be written over, and neither may a checkpoint of the same training.
  await cp(TINY_ADAPTER, join(place.folder, 'own'), { recursive: true })
  const onto = ['sft', '--model', TINY, '--data', 'rows.jsonl', '--adapter', 'own', '--out', 'own', ...WASM]
  await place.refused(onto, /--out: must not be what --adapter reads/, 2)
})

test('a rate of full fine-tuning is remarked upon', async () => {
  const { code, err } = await place.pinball(tiny('slow', '--lr', '9e-6', '--max-steps', '1'))
  assert.is(code, 0)
  assert.is(err, 'pinball: sft: note: --lr 0.000009 is small for LoRA, which mostly needs 1e-4 and more\n')
})

test.run()
