// pinball rloo as a user runs it: rewards of every kind, what it writes, ends by signals, kills and servers.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { close } from './assert.ts'
import { finish, type Workplace } from './command.ts'
import { random } from './random.ts'
import { startRewards } from './reward_server.ts'
import { NANO, nano, openRlooPlace, QUICK, SMALL_IDS, TINY, TINY_ADAPTER, tiny } from './rloo_arguments.ts'

let place: Workplace
test.before(async () => {
  place = await openRlooPlace()
})
test.after(() => place.remove())

/** All files of a training but the event file, by name; of folders too. */
async function filesOf(out: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  const folder = join(place.folder, out)
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile() && !entry.name.includes('tfevents'))
      files[path.slice(folder.length + 1)] = (await readFile(path)).toString('latin1')
  }
  return files
}

async function same(out: string, wanted: string): Promise<void> {
  const [found, expected] = [await filesOf(out), await filesOf(wanted)]
  assert.equal(Object.keys(found).sort(), Object.keys(expected).sort())
  for (const [name, content] of Object.entries(expected)) assert.ok(found[name] === content, `${out}/${name} differs`)
}

const linesOf = async (path: string) =>
  (await readFile(join(place.folder, path), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const stepsOf = async (out: string) => (await linesOf(`${out}/log.jsonl`)).filter((entry) => 'loss' in entry)

/** The last step that there is a state of. */
async function lastStep(out: string): Promise<number> {
  const names = await readdir(join(place.folder, out)).catch(() => [])
  return Math.max(0, ...names.map((name) => Number(/^state-(\d+)\.part$/.exec(name)?.[1] ?? 0)))
}

test('a training writes an adapter, a log, generations, checkpoints and all settings', async () => {
  const more = ['--max-steps', '4', '--eval', '0.3', '--eval-steps', '2', '--save-steps', '2', '--json']
  const { code, out, err } = await place.pinball(tiny('first', ...more))
  assert.equal([code, err], [0, ''])
  const report = JSON.parse(out)
  assert.equal(Object.keys(report), [
    ...['prompts', 'held', 'steps', 'parameters', 'num_tokens', 'reward', 'kl_seq', 'eval_reward'],
    ...['dropped', 'out', 'ms', 'tokens_per_second'],
  ])
  assert.equal([report.prompts, report.held, report.steps, report.dropped], [4, 2, 4, 0])
  assert.ok(report.tokens_per_second > 0)
  const names = Object.keys(await filesOf('first'))
  assert.equal(names.filter((name) => !name.includes('/')).sort(), [
    ...['adapter_config.json', 'adapter_model.safetensors', 'generations.jsonl', 'log.jsonl', 'training.json'],
  ])
  for (const step of [2, 4]) assert.ok(names.includes(`checkpoint-${step}/adapter_model.safetensors`))
  const steps = await stepsOf('first')
  for (const name of [
    ...['step', 'epoch', 'loss', 'grad_norm', 'learning_rate', 'num_tokens', 'reward', 'reward_std', 'kl', 'kl_seq'],
    ...['entropy', 'frac_reward_zero_std', 'rewards/small.mjs/mean', 'rewards/small.mjs/std'],
    ...['completions/mean_length', 'completions/clipped_ratio', 'sampling/logp_difference_max'],
  ])
    assert.ok(
      steps.every((entry) => Number.isFinite(entry[name])),
      name,
    )
  assert.equal([steps[0].kl, steps[0].kl_seq], [0, 0])
  assert.is(steps.at(-1).reward, report.reward)
  const log = await linesOf('first/log.jsonl')
  assert.equal(
    log.filter((entry) => 'eval_reward' in entry).map(({ step }) => step),
    [2, 4],
  )
  const generations = await linesOf('first/generations.jsonl')
  assert.is(generations.length, 24)
  assert.ok(generations.every(({ prompt_id: id }) => /^p\d$/.test(id)))
  const { settings, record } = JSON.parse(await readFile(join(place.folder, 'first/training.json'), 'utf8'))
  const told = { '--k': 3, '--batch': 6, '--beta': 0.05, '--temperature': 1, '--updates': 1, '--max-grad-norm': 1 }
  for (const [name, value] of Object.entries({ ...told, '--epochs': 2, '--max-new-tokens': 7, '--kl': 'k1' }))
    assert.is(settings[name], value, name)
  assert.equal(record, {
    ...{ '--model': TINY, '--prompts': 'prompts.jsonl', '--adapter': null, '--eval': 0.3 },
    ...{ '--reward': ['1:small.mjs'], '--preset': 'trl-1', '--checkpointing': false, '--save-steps': 2 },
  })
  const again = await place.pinball(tiny('first', ...more))
  assert.match(again.err, /^pinball: rloo: first holds this training, finished; --restart begins it anew\n$/)
  await place.refused(tiny('first', ...more, '--beta', '0.1'), /holds a training with --beta 0\.05, now it is 0\.1/)
  await place.file('small.mjs', `${SMALL_IDS}// another function\n`)
  await place.refused(tiny('first', ...more), /holds a training with rewards/)
  await place.file('small.mjs', SMALL_IDS)
})

test('a preset holds where nothing is given', async () => {
  const settingsOf = async (out: string, ...more: string[]) => {
    const { code, err } = await place.pinball(tiny(out, '--max-steps', '1', ...more))
    assert.equal([code, err], [0, ''])
    return JSON.parse(await readFile(join(place.folder, out, 'training.json'), 'utf8')).settings
  }
  const old = await settingsOf('old', '--preset', 'trl-0.9')
  assert.equal([old['--temperature'], old['--updates'], old['--max-grad-norm']], [0.7, 4, 0])
  const [step] = await stepsOf('old')
  assert.ok('clip_ratio/region_mean' in step && 'loss/last' in step)
  const given = await settingsOf('given', '--preset', 'trl-0.9', '--temperature', '1', '--max-grad-norm', '2')
  assert.equal([given['--temperature'], given['--updates'], given['--max-grad-norm']], [1, 4, 2])
})

test('every option reaches the training', async () => {
  const options = {
    ...{ '--beta': '0.2', '--kl': 'k3', '--updates': '2', '--aggregation': 'token', '--temperature': '0.5' },
    ...{ '--reward-scale': '2', '--reward-bias': '-1', '--entropy': '0.01', '--seed': '4', '--schedule': 'linear' },
  }
  const more = ['--clip', '0.1,0.3', '--reward-clip', '-2,1', '--missing-eos', 'subtract:0.5', '--scale-advantages']
  const { err } = await place.pinball(tiny('all', '--max-steps', '1', ...Object.entries(options).flat(), ...more))
  assert.is(err, '')
  const { settings } = JSON.parse(await readFile(join(place.folder, 'all/training.json'), 'utf8'))
  for (const [name, value] of Object.entries(options)) assert.is(String(settings[name]), value, name)
  assert.equal(settings['--clip'], [0.1, 0.3])
  assert.equal(settings['--reward-clip'], [-2, 1])
  assert.equal(settings['--truncated'], { kind: 'subtract', value: 0.5 })
  assert.is(settings['--scale-advantages'], true)
  const [entry] = await stepsOf('all')
  const rows = await linesOf('all/generations.jsonl')
  for (const { tokens, reward, finish_reason } of rows) {
    const plain = -tokens.reduce((sum: number, id: number) => sum + id, 0) / (131 * tokens.length)
    close([reward], [2 * plain - 1 - (finish_reason === 'length' ? 0.5 : 0)], 1e-12, 'shaped')
  }
  close([entry.reward], [rows.reduce((sum, { reward }) => sum + reward, 0) / rows.length], 1e-12, 'reward')
})

test('--adapter goes on from an adapter, whose frozen copy is the reference', async () => {
  const args = [
    'rloo',
    '--model',
    TINY,
    '--adapter',
    TINY_ADAPTER,
    '--reward',
    'small.mjs',
    '--prompts',
    'prompts.jsonl',
  ]
  const { err } = await place.pinball([...args, '--out', 'on', ...QUICK, '--max-steps', '2'])
  assert.is(err, '')
  const [first, second] = await stepsOf('on')
  assert.is(first.kl_seq, 0)
  assert.ok(second.kl_seq !== 0)
  await place.refused([...args, '--out', 'on', ...QUICK, '--rank', '4'], /--rank: is for a new adapter/, 2)
})

test('a reward model in process, with a risk, beside a module and an endpoint; the reward is their weighted sum', async () => {
  const server = await startRewards((query) => (query.includes('music') ? null : query.length))
  try {
    server.faults.push({ status: 503 })
    const rewards = [`0.7:${NANO}`, '-0.2:length.mjs', `0.5:${server.url}?key=secret`]
    const more = ['--max-steps', '1', '--risk', 'cvar:0.2', '--reliability', '0.8', '--json']
    const { code, err } = await place.pinball(nano('several', rewards, ...more))
    assert.is(code, 0, err)
    assert.is(err, `pinball: rloo: note: ${server.url}: the server answers 503; try 2 of 5 in 1 s\n`)
    const [entry] = await stepsOf('several')
    const rows = await linesOf('several/generations.jsonl')
    assert.is(server.requests.length, 2)
    const [{ query, prompts, labels }] = server.requests
    assert.equal(
      query,
      rows.map(({ prompt, completion }) => prompt + completion),
    )
    assert.equal([prompts.length, labels.filter((label) => label === 'a').length], [6, 2])
    const lengths = rows.map(({ completion }) => completion.length)
    close([entry['rewards/length.mjs/mean']], [lengths.reduce((a, b) => a + b, 0) / 6], 1e-12, 'module')
    // All completions have the first two; those about the music have no other.
    const http = query.reduce((sum, text) => sum + (text.includes('music') ? 0 : text.length), 0) / 6
    const wanted = 0.7 * entry['rewards/nano/mean'] - 0.2 * entry['rewards/length.mjs/mean'] + 0.5 * http
    close([entry.reward], [wanted], 1e-9, 'weighted sum')
    for (const name of ['reward/expectation', 'reward/utility', 'reward/q05', 'reward/q95', 'reliability/factor_min'])
      assert.ok(Number.isFinite(entry[name]), name)
    const text = await readFile(join(place.folder, 'several/training.json'), 'utf8')
    assert.not(text.includes('secret'))
  } finally {
    await server.close()
  }
})

const LONG = ['--max-steps', '60', '--save-steps', '1', '--eval', '0.3', '--eval-steps', '7', '--updates', '2']

test('killed and interrupted at any step, the same command gives the same files', async () => {
  const whole = await place.pinball(tiny('whole', ...LONG))
  assert.is(whole.code, 0, whole.err)
  const chance = random(Date.now())
  for (const signals of [
    ['SIGKILL', 'SIGINT', 'SIGTERM'],
    ['SIGTERM', 'SIGKILL'],
  ] as const) {
    const out = `cut-${signals.length}`
    for (const [i, signal] of signals.entries()) {
      // A process that has not made a step of its own may not have its handlers yet.
      const from = await lastStep(out)
      const share = (i + Math.abs(chance.uniform(1)[0])) / (signals.length + 1)
      const until = Math.max(from + 1, Math.floor(share * 40))
      const child = place.launch(tiny(out, ...LONG))
      const ended = finish(child)
      while (child.exitCode === null && (await lastStep(out)) < until) await pause(2)
      child.kill(signal)
      const { code, err } = await ended
      const told = `${signal} from step ${until}: ${code} ${err}`
      assert.is(code, signal === 'SIGKILL' ? null : signal === 'SIGINT' ? 130 : 143, told)
      if (signal !== 'SIGKILL') assert.match(err, /rloo: interrupted; step \d+ is saved in cut-\d; the same/, told)
    }
    const { code, err } = await place.pinball(tiny(out, ...LONG))
    assert.is(code, 0, err)
    await same(out, 'whole')
  }
})

test('interrupted while rewards are waited for, in a rollout or an evaluation, or stopped by the server: the same files', async () => {
  const server = await startRewards((query) => query.length % 7)
  const args = (out: string) => nano(out, [server.url], '--max-steps', '3', '--eval', '0.3', '--eval-steps', '1')
  try {
    const whole = await place.pinball(args('answered'))
    assert.is(whole.code, 0, whole.err)
    // A request a step and one an evaluation: the third is of step 2, the fourth of its evaluation.
    for (const [at, saved] of [
      [3, 1],
      [4, 2],
    ]) {
      const stalled = `stalled-${at}`
      const before = server.requests.length
      server.faults.push(...Array.from({ length: at - 1 }, () => ({})), { stall: true })
      const child = place.launch(args(stalled))
      const ended = finish(child)
      while (child.exitCode === null && server.requests.length < before + at) await pause(2)
      child.kill('SIGINT')
      const { code, err } = await ended
      assert.is(code, 130, err)
      assert.match(err, new RegExp(`rloo: interrupted; step ${saved} is saved in ${stalled}; the same command`))
      const refused = `refused-${at}`
      server.faults.push(...Array.from({ length: at - 1 }, () => ({})), { status: 404 })
      await place.refused(
        args(refused),
        `${server.url}: the server answers 404; it must be 200 with {"rewards": [...]}`,
      )
      for (const out of [stalled, refused]) {
        const rest = await place.pinball(args(out))
        assert.is(rest.code, 0, rest.err)
        await same(out, 'answered')
      }
    }
  } finally {
    await server.close()
  }
})

test('a server that does not answer, or is not there, stops the training after its tries', async () => {
  const server = await startRewards(() => 0)
  server.faults.push({ stall: true })
  const slow = nano('slow', [server.url], '--reward-timeout', '0.2', '--reward-retries', '0')
  await place.refused(
    slow,
    new RegExp(`^pinball: ${server.url}: the server does not answer within 0\\.2 s \\(tries: 1\\)`),
  )
  await server.close()
  const { code, out, err } = await place.pinball(nano('dead', [server.url], '--reward-retries', '1'))
  assert.equal([code, out], [1, ''])
  assert.match(err, new RegExp(`note: ${server.url}: .*ECONNREFUSED\\); try 2 of 2 in 1 s\n`))
  assert.match(
    err,
    new RegExp(`pinball: ${server.url}: the server cannot be reached \\(ECONNREFUSED\\) \\(tries: 2\\)`),
  )
})

test('a completion without a reward is counted and has no gradient', async () => {
  const name = await place.file(
    'some.mjs',
    'export default (rows) => rows.map(({ completion_ids: ids }, i) => (i % 3 === 1 ? NaN : ids[0]))\n',
  )
  const args = tiny('some', '--max-steps', '1').map((arg) => (arg === 'small.mjs' ? name : arg))
  const { err } = await place.pinball(args)
  assert.is(err, '')
  const [entry] = await stepsOf('some')
  assert.is(entry['rewards/missing'], 2)
  const rows = await linesOf('some/generations.jsonl')
  for (const [i, { reward, advantage }] of rows.entries()) if (i % 3 === 1) assert.equal([reward, advantage], [null, 0])
})

test('prompts of --max-prompt tokens or more are left out and counted', async () => {
  const { out, err } = await place.pinball(tiny('short', '--max-prompt', '3', '--json'))
  assert.is(err, 'pinball: rloo: note: prompts of 3 tokens or more are left out: 3\n')
  const report = JSON.parse(out)
  assert.equal([report.dropped, report.prompts, report.steps], [3, 3, 2])
})

test.run()
