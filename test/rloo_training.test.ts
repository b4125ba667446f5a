// trainRloo as a whole: what it draws, rewards, logs and writes; that it goes on with the same bits; what it saves when rewards fail.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { openDevice } from '../src/device/open.ts'
import { memoryFiles } from '../src/files/source.ts'
import { memoryTree, type StoreTree } from '../src/files/store.ts'
import type { Adapter } from '../src/llama/adapter_files.ts'
import type { RlooEntry } from '../src/train/rloo/log.ts'
import type { RlooPrompt } from '../src/train/rloo/prompts.ts'
import { functionReward, type RewardRow, type RewardSource } from '../src/train/rloo/rewards.ts'
import { type RlooOptions, trainRloo } from '../src/train/rloo/rloo.ts'
import { fails } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles } from './lora_fixture.ts'

const devices = [...(await testDevices()), await openDevice('wasm', { threads: 3 })]
const cpu = devices.find(({ kind }) => kind === 'wasm')!
const files = memoryFiles('untied', folderFiles('untied/model'))
const adapter = memoryFiles('adapter', folderFiles('untied/adapter'))

const PROMPTS: RlooPrompt[] = [[5, 6, 7], [8], [5, 6, 7], [9, 10, 11, 12, 13, 14], [20, 21]].map((ids, i) => ({
  tokens: Uint32Array.from(ids),
  messages: null,
  label: i,
  row: { input_ids: ids },
}))
const HELD = PROMPTS.slice(0, 3).map((prompt) => ({ ...prompt, tokens: Uint32Array.from([...prompt.tokens, 30]) }))
/** Small ids are good. */
const reward = ({ completion_ids: ids }: RewardRow) => -ids.reduce((sum, id) => sum + id, 0) / (131 * ids.length)
const source = functionReward((rows) => rows.map(reward), { name: 'small' })
const SETTINGS: RlooOptions = {
  ...{ k: 3, batch: 6, maxNewTokens: 7, lr: 0.02, rank: 2, alpha: 4, maxSteps: 5, seed: 3, held: HELD, evalSteps: 2 },
  saveSteps: 2,
}

const flat = ({ layers }: Adapter): number[] =>
  layers.flatMap((layer) => Object.values(layer).flatMap(({ a, b }) => [...a, ...b]))

async function run(device: Device, options: RlooOptions = {}, own = source) {
  const entries: RlooEntry[] = []
  const onEntry = (entry: object) => entries.push(entry as RlooEntry)
  const tuned = await trainRloo(device, files, PROMPTS, [own], { ...SETTINGS, ...options, onEntry })
  return {
    tuned,
    steps: entries.filter((entry) => 'loss' in entry),
    evaluations: entries.filter((entry) => 'eval_reward' in entry),
  }
}

async function text(store: StoreTree, name: string): Promise<string> {
  const source = await store.open(name)
  return source ? new TextDecoder().decode(await source.read(0, source.byteLength)) : ''
}

for (const device of devices) {
  test(`it draws, rewards, learns and writes on ${device.description}`, async () => {
    const store = memoryTree('out')
    const { tuned, steps, evaluations } = await run(device, { store })
    assert.equal(
      steps.map(({ step }) => step),
      [1, 2, 3, 4, 5],
    )
    assert.equal(
      evaluations.map(({ step }) => step),
      [2, 4, 5],
    )
    // Two prompts a step, three steps a pass.
    assert.equal(
      steps.map(({ epoch }) => epoch),
      [1, 2, 3, 4, 5].map((step) => step / 3),
    )
    assert.equal([steps[0].kl, steps[0].kl_seq], [0, 0])
    assert.ok(steps.at(-1)!.kl_seq !== 0)
    for (const entry of steps)
      assert.ok(entry['sampling/logp_difference_max'] < 2e-5, `drift ${entry['sampling/logp_difference_max']}`)
    const lines = (await text(store, 'generations.jsonl'))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    // The last step of a pass has one prompt.
    assert.equal(
      lines.map(({ step }) => step),
      [1, 2, 3, 4, 5].flatMap((step) => new Array(step === 3 ? 3 : 6).fill(step)),
    )
    assert.equal(Object.keys(lines[0]), [
      ...['step', 'prompt_id', 'prompt', 'completion', 'reward', 'advantage', 'tokens', 'finish_reason'],
    ])
    for (const { step, reward: mean, num_tokens } of steps) {
      const own = lines.filter((line) => line.step === step)
      const sum = own.reduce((total, line) => total + line.reward, 0)
      assert.ok(Math.abs(mean - sum / own.length) < 1e-12)
      for (const line of own) {
        assert.is(line.finish_reason, line.tokens.at(-1) === 2 ? 'stop' : 'length')
        assert.ok(line.tokens.length <= 7 && !line.tokens.slice(0, -1).includes(2))
        const group = own.filter((other) => other.prompt_id === line.prompt_id)
        assert.is(group.length, 3)
        assert.ok(Math.abs(group.reduce((total, other) => total + other.advantage, 0)) < 1e-6)
      }
      const counted = lines.filter((line) => line.step <= step)
      const tokens = counted.reduce(
        (total, line) => total + line.tokens.length + PROMPTS[line.prompt_id].tokens.length,
        0,
      )
      assert.is(num_tokens, tokens)
    }
    assert.equal(
      (await store.list()).filter((name) => !name.includes('tfevents')),
      [...['adapter_config.json', 'adapter_model.safetensors', 'generations.jsonl', 'log.jsonl', 'training.json']],
    )
    assert.equal(await store.folders(), ['checkpoint-2', 'checkpoint-4'])
    assert.equal([tuned.prompts, tuned.held, tuned.steps], [5, 3, 5])
    assert.is(tuned.reward, steps.at(-1)!.reward)
    assert.is(tuned.eval_reward, evaluations.at(-1)!.eval_reward)
  })
}

test('the reward rises', async () => {
  const { steps } = await run(cpu, { maxSteps: 40, batch: 30, k: 6, beta: 0, held: [] })
  const mean = (own: readonly RlooEntry[]) => own.reduce((sum, entry) => sum + entry.reward, 0) / own.length
  const [first, last] = [mean(steps.slice(0, 5)), mean(steps.slice(-5))]
  // 150 completions each: the deviation of their mean is a twelfth of a completion's.
  assert.ok(last > first + steps[0].reward_std, `${first}, ${last}, ${steps[0].reward_std}`)
})

test('an evaluation has no numbers that only training has, and is of the policy as it is', async () => {
  const { evaluations } = await run(cpu)
  for (const entry of evaluations) {
    const only = ['loss', 'grad_norm', 'clip_ratio', 'advantage', 'frac_reward_zero_std', 'learning_rate']
    assert.not(
      Object.keys(entry).some((key) => only.some((name) => key.includes(name))),
      JSON.stringify(entry),
    )
    assert.ok(['eval_reward', 'eval_rewards/small/mean', 'eval_kl_seq', 'eval_entropy'].every((key) => key in entry))
  }
})

test('threads and micro-batches of whole groups change no completion', async () => {
  const [one, three] = await Promise.all([cpu, devices.at(-1)!].map((device) => run(device)))
  assert.equal(flat(three.tuned.adapter), flat(one.tuned.adapter))
  assert.equal(three.steps, one.steps)
})

test('rows of equal texts are groups of their own when completions are drawn', async () => {
  const store = memoryTree('groups')
  await run(cpu, { store, maxSteps: 1, batch: 15, held: [] })
  const lines = (await text(store, 'generations.jsonl')).trimEnd().split('\n')
  const groups = new Map<number, number[]>()
  for (const line of lines) {
    const { prompt_id, advantage } = JSON.parse(line)
    groups.set(prompt_id, [...(groups.get(prompt_id) ?? []), advantage])
  }
  assert.equal([...groups.keys()].sort(), [0, 1, 2, 3, 4])
  for (const advantages of groups.values()) {
    assert.is(advantages.length, 3)
    assert.ok(Math.abs(advantages.reduce((sum, value) => sum + value, 0)) < 1e-6)
  }
  assert.not.equal(groups.get(0), groups.get(2), 'equal texts are drawn apart')
})

test('completions are drawn at the temperature that training computes with', async () => {
  for (const temperature of [0.4, 2]) {
    const { steps } = await run(cpu, { temperature, maxSteps: 2 })
    for (const entry of steps)
      assert.ok(entry['sampling/logp_difference_max'] < 2e-5, `drift ${entry['sampling/logp_difference_max']}`)
  }
})

test('one that goes on from an adapter has a frozen copy of it as its reference', async () => {
  const { steps } = await run(cpu, { adapter, maxSteps: 2 })
  assert.equal([steps[0].kl, steps[0].kl_seq], [0, 0])
  assert.ok(Math.abs(steps[1].kl_seq) > 0)
})

test('a training that is cut goes on with the same bits: log, generations, adapter', async () => {
  const saveEvery = { steps: 1, seconds: Infinity }
  for (const options of [{}, { updates: 3, normalizeAdvantages: true, beta: 0.2 }] satisfies RlooOptions[]) {
    const whole = memoryTree('whole')
    const { tuned } = await run(cpu, { ...options, store: whole, saveEvery })
    const store = memoryTree('cut')
    let cuts = 0
    for (let at = 3; ; at += 5) {
      // Cut after a number of completions in all, in the middle of a rollout.
      const controller = new AbortController()
      let ended = 0
      const onRollout = ({ step }: { step: number | null }) => {
        if (step !== null && ++ended >= at) controller.abort(new Error('cut'))
      }
      const call = run(cpu, { ...options, store, saveEvery, onRollout, signal: controller.signal })
      const done = await call.catch((error: Error) => assert.is(error.message, 'cut') as never)
      if (done) {
        assert.equal(flat(done.tuned.adapter), flat(tuned.adapter))
        break
      }
      cuts++
    }
    assert.ok(cuts > 3, `${cuts} cuts`)
    for (const name of ['log.jsonl', 'generations.jsonl', 'training.json', 'adapter_model.safetensors'])
      assert.is(await text(store, name), await text(whole, name), name)
    const again = await run(cpu, { ...options, store })
    assert.is(again.tuned.finished, true)
  }
})

test('a number that the first rewards fix is kept with the training', async () => {
  const fixing = (): RewardSource => ({
    ...{ name: 'fixing', identity: 'fixing', origin: null },
    async score(rows) {
      const plain = rows.map(reward)
      this.origin ??= Math.fround(plain[0])
      return { rewards: plain.map((value) => Math.exp(value - this.origin!)) }
    },
  })
  const whole = await run(cpu, { held: [] }, fixing())
  const store = memoryTree('origin')
  const controller = new AbortController()
  const onRollout = ({ step }: { step: number | null }) => {
    if (step === 3) controller.abort(new Error('cut'))
  }
  await fails(() => run(cpu, { store, held: [], onRollout, signal: controller.signal }, fixing()), 'cut')
  const rest = await run(cpu, { store, held: [] }, fixing())
  assert.equal(
    rest.steps.map(({ step }) => step),
    [3, 4, 5],
  )
  assert.equal(flat(rest.tuned.adapter), flat(whole.tuned.adapter))
})

test('an evaluation that fails keeps its step, and is what a training that goes on begins with', async () => {
  const held = HELD.slice(0, 2)
  const whole = memoryTree('whole')
  await run(cpu, { held, store: whole })
  const store = memoryTree('evaluated')
  // So many evaluations are answered; they have one completion a prompt, steps have three.
  const answering = (evaluations: number) =>
    functionReward(
      (rows) => {
        if (rows.length === held.length && evaluations-- <= 0) throw new Error('gone')
        return rows.map(reward)
      },
      { name: 'small' },
    )
  for (const [evaluations, step] of [
    [0, 2],
    [0, 2],
    [1, 4],
  ]) {
    await fails(() => run(cpu, { held, store }, answering(evaluations)), 'gone')
    assert.ok((await store.list()).includes(`state-00000${step}.part`), `step ${step}`)
  }
  await run(cpu, { held, store })
  for (const name of ['log.jsonl', 'generations.jsonl', 'adapter_model.safetensors'])
    assert.is(await text(store, name), await text(whole, name), name)
})

test('what a killed process had written behind its last state is cut off', async () => {
  const whole = memoryTree('whole')
  await run(cpu, { store: whole })
  const store = memoryTree('killed')
  let asked = 0
  const failing = functionReward(
    (rows) => {
      if (asked++ === 3) throw new Error('gone')
      return rows.map(reward)
    },
    { name: 'small' },
  )
  await fails(() => run(cpu, { store, held: [] }, failing), 'gone')
  const before = await text(store, 'generations.jsonl')
  assert.ok(before.length > 0)
  await store.append('generations.jsonl', before.length, new TextEncoder().encode('{"step":4,"pro'))
  await run(cpu, { store, held: [] })
  const straight = memoryTree('straight')
  await run(cpu, { store: straight, held: [] })
  assert.is(await text(store, 'generations.jsonl'), await text(straight, 'generations.jsonl'))
  // One that lost some of it cannot go on.
  const short = memoryTree('short')
  asked = 0
  await fails(() => run(cpu, { store: short, held: [] }, failing), 'gone')
  await short.write('generations.jsonl', [])
  await fails(
    () => run(cpu, { store: short, held: [] }),
    /short\/generations\.jsonl: has 0 bytes, the steps that are saved had written \d+; give --restart/,
  )
  await run(cpu, { store: short, held: [], restart: true })
  assert.is(await text(short, 'generations.jsonl'), await text(straight, 'generations.jsonl'))
})

test('rewards that fail stop the training, and the steps before are saved', async () => {
  const store = memoryTree('failed')
  let asked = 0
  const failing = functionReward(
    (rows) => {
      if (asked++ === 2) throw new Error('http://127.0.0.1/get_reward: the server answers 500')
      return rows.map(reward)
    },
    { name: 'small' },
  )
  await fails(() => run(cpu, { store, held: [] }, failing), /the server answers 500/)
  assert.ok((await store.list()).includes('state-000002.part'))
})

test('other rewards, prompts or settings are another training', async () => {
  const store = memoryTree('other')
  await run(cpu, { store, maxSteps: 1 })
  await fails(() => run(cpu, { store, maxSteps: 1, beta: 0.1 }), /holds a training with --beta 0\.05, now it is 0\.1/)
  await fails(() => run(cpu, { store, maxSteps: 1 }, { ...source, weight: 2 }), /holds a training with rewards/)
  await fails(() => run(cpu, { store, maxSteps: 1, held: [] }), /held-out prompts with the SHA-256/)
})

test('another engine may draw; what it gives is checked, and how far it is off is in the log', async () => {
  const one = { tokens: Uint32Array.of(5, 2), logprobs: Float32Array.of(-1, -1), finishReason: 'stop' as const }
  const draw: RlooOptions['draw'] = async (prompts) =>
    prompts.flatMap(({ samples }, prompt) =>
      Array.from({ length: samples }, (_, sample) => ({ ...one, prompt, sample })),
    )
  const { steps } = await run(cpu, { draw, maxSteps: 1 })
  assert.ok(steps[0]['sampling/logp_difference_max'] > 0.5)
  assert.is(steps[0].frac_reward_zero_std, 1)
  await fails(() => run(cpu, { draw: async () => [], maxSteps: 1 }), /6 completions were asked for, got 0/)
  await fails(
    () => run(cpu, { draw: async (prompts, ...rest) => [...(await draw(prompts, ...rest))].reverse(), maxSteps: 1 }),
    /completion 0 must be sample 0 of prompt 0, got 2 of 1/,
  )
})

test('what cannot be trained is refused', async () => {
  await fails(() => trainRloo(cpu, files, [], [source], SETTINGS), /there are no prompts/)
  await fails(() => trainRloo(cpu, files, PROMPTS, [], SETTINGS), /there are no rewards/)
  await fails(() => run(cpu, { k: 4 }), /batch must be a multiple of k = 4/)
  const long = [{ tokens: new Uint32Array(512), messages: null }]
  await fails(() => trainRloo(cpu, files, long, [source], SETTINGS), /prompt 1 has 512 tokens/)
})

test('devices close', async () => {
  await devices.at(-1)!.destroy()
  await closeDevices()
})

test.run()
