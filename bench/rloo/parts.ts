// Steps of RLOO by their parts (drawing, rewards, update), each beside what rates predict that are measured in the same step: on the
// same device, right after the rewards, by code that knows nothing of RLOO.
//
//   drawing    prompts by the time a token of theirs takes; then for each step of decoding the time that a step with so many rows takes,
//              with a token that costs nothing to choose; and what choosing takes
//   rewards    tokens, those of a prompt once, by the time a token takes where rows have nothing in common; and the texts' way to tokens
//   update     rows of the reference's forward, of the policy's, of its way back; rows of the output layer, there and back; AdamW
import type { Device } from '../../src/device/device.ts'
import { openDirectory } from '../../src/files/disk.ts'
import { chooser } from '../../src/generate/chooser.ts'
import { type Choose, GENERATION_DEFAULTS, type Prompt } from '../../src/generate/continuation.ts'
import { openDecoder } from '../../src/generate/decoding.ts'
import { newAdapterConfig } from '../../src/llama/adapter_config.ts'
import { readAdapter } from '../../src/llama/adapter_files.ts'
import { openBackbone } from '../../src/llama/forward.ts'
import { openOutputLayer, outputInfo } from '../../src/llama/output_layer.ts'
import { openPass } from '../../src/llama/training_pass.ts'
import { openModelDirectory } from '../../src/reward/directory.ts'
import { loadRewardModel } from '../../src/reward/model.ts'
import type { EncodedRow } from '../../src/reward/rows.ts'
import { AdapterParameters } from '../../src/train/adapter_parameters.ts'
import { startAdapter } from '../../src/train/adapter_start.ts'
import { Optimiser } from '../../src/train/optimiser.ts'
import { modelReward } from '../../src/train/rloo/model_reward.ts'
import { promptGroups, rowsOf } from '../../src/train/rloo/policy_pass.ts'
import { encodeRlooPrompt } from '../../src/train/rloo/prompts.ts'
import type { RewardRow, RewardSource } from '../../src/train/rloo/rewards.ts'
import { trainRloo } from '../../src/train/rloo/rloo.ts'
import { openTextRules } from '../../src/train/row_text.ts'
import { table } from '../measure.ts'

export interface PartsOptions {
  readonly model: string
  readonly adapter: string | null
  readonly reward: string
  readonly steps: number
  readonly k: number
  readonly batch: number
  readonly tokens: number
  readonly clock: keyof typeof CLOCKS
}

const THINGS = ['film', 'book', 'hotel', 'train', 'dinner', 'concert', 'teacher', 'phone', 'winter', 'garden', 'game']
const ASKED = ['How was the %?', 'Tell me about the % that you liked most.', 'Why would anybody not like this %?']
const PROMPTS = ASKED.flatMap((text) => THINGS.map((thing) => ({ prompt: text.replace('%', thing) })))

/** Milliseconds by the clock; or of the processor, which a busy machine changes less, where one thread computes. */
const CLOCKS = {
  wall: () => performance.now(),
  processor: () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  },
}

const PARTS = ['drawing', 'rewards', 'update'] as const
type Times = Record<(typeof PARTS)[number], number>
/** With what choosing tokens and putting texts into tokens take, which no rate of a model says; they are in `drawing` and `rewards`. */
type Predicted = Times & { readonly choosing: number; readonly text: number }

/** Measures steps; prints a table and gives the numbers. */
export async function measureParts(device: Device, options: PartsOptions): Promise<object> {
  const { k, batch, tokens: maxNewTokens, steps, clock } = options
  const now = CLOCKS[clock]
  const files = await openDirectory(options.model)
  const rules = await openTextRules(files, 1024)
  const prompts = PROMPTS.map((row) => encodeRlooPrompt(row, { ...rules, maxPosition: Infinity }))
  const reward = await loadRewardModel(device, await openDirectory(options.reward))
  const source = await modelReward(reward)
  const rates = await openRates(device, options, reward)
  const measured: Times[] = []
  const predicted: Predicted[] = []
  let before = now()
  let times: Times = { drawing: 0, rewards: 0, update: 0 }
  const timed: RewardSource = {
    ...source,
    async score(rows, context) {
      const begin = now()
      times = { ...times, drawing: begin - before }
      const given = await source.score(rows, context)
      times = { ...times, rewards: now() - begin }
      predicted.push(await rates.predict(rows))
      before = now()
      return given
    },
  }
  const seen: Record<string, number>[] = []
  await trainRloo(device, files, prompts, [timed], {
    ...{ k, batch, maxNewTokens, maxSteps: steps + 1, lr: 1e-4 },
    adapter: options.adapter ? await openDirectory(options.adapter) : null,
    onEntry(entry) {
      seen.push(entry as Record<string, number>)
      measured.push({ ...times, update: now() - before })
      before = now()
    },
  })
  rates.destroy()
  await reward.destroy()
  // The first step warms up.
  const sum = <T extends Times, P extends keyof T>(list: readonly T[], part: P) =>
    list.slice(1).reduce((total, own) => total + Number(own[part]), 0) / steps
  const rows = PARTS.map((part) => {
    const [took, expected] = [sum(measured, part), sum(predicted, part)]
    const ratios = measured.slice(1).map((own, i) => own[part] / predicted[i + 1][part])
    ratios.sort((a, b) => a - b)
    return { part, ms: took, predicted: expected, ratio: took / expected, median: ratios[ratios.length >> 1] }
  })
  const length = seen.slice(1).reduce((total, own) => total + own['completions/mean_length'], 0) / steps
  console.log(
    `${device.description}: ${options.model}, ${batch} completions of ${length.toFixed(1)} tokens, k ${k}, ${steps} steps`,
  )
  console.log(
    table(
      ['part', 'ms', 'predicted', 'ratio', 'median of steps'],
      rows.map(({ part, ms, predicted: expected, ratio, median }) => [
        part,
        ...[ms, expected].map((value) => value.toFixed(1)),
        ...[ratio, median].map((value) => value.toFixed(3)),
      ]),
    ),
  )
  const [choosing, text] = [sum(predicted, 'choosing'), sum(predicted, 'text')]
  console.log(
    `of the predictions: choosing tokens (softmax and draw over ${rules.vocab}) ${choosing.toFixed(1)} ms, texts to tokens ${text.toFixed(1)} ms`,
  )
  return { device: device.description, ...options, length, rows, choosing, text }
}

/** Opens models of its own and gives what a step would take by their rates. */
async function openRates(
  device: Device,
  { model: path, adapter: own, k, tokens: maxNewTokens, clock }: PartsOptions,
  reward: Awaited<ReturnType<typeof loadRewardModel>>,
) {
  const now = CLOCKS[clock]
  const directory = await openModelDirectory(await openDirectory(path))
  const model = await openBackbone(device, directory)
  const { config } = model
  const output = await openOutputLayer(device, config, outputInfo(directory.tensors, config)!)
  const settings = { task: 'CAUSAL_LM', rank: 32, alpha: 64, targets: 'all-linear', dropout: 0 } as const
  const start = own
    ? await readAdapter(await openDirectory(own), config)
    : startAdapter(newAdapterConfig(settings), config, 0)
  const adapter = new AdapterParameters(device, start, config)
  const optimiser = new Optimiser(device, adapter.parameters, { weightDecay: 0, maxGradNorm: 1 })
  let updates = 0

  /** Milliseconds that work takes, until the device has done it. */
  const time = async (work: () => unknown): Promise<number> => {
    const begin = now()
    await work()
    await device.done()
    return now() - begin
  }

  /** A prompt's token, and a step of so many rows: from runs of some lengths with a constant token. */
  const decoding = async (rows: readonly RewardRow[]) => {
    const decoder = openDecoder({ device, model, output, adapter: adapter.layers }, { slots: 64 })
    const firsts = rows.filter((_, i) => i % k === 0)
    const prompts = firsts.map(({ prompt_ids: tokens }, key): Prompt => ({ tokens, samples: k, key }))
    const counts = [1, 2, 4, 8, 16, 32, 64].filter((count) => count < rows.length)
    counts.push(rows.length)
    const steps: [rows: number, ms: number][] = []
    let prefill = 0
    for (const count of counts) {
      const asked = prompts
        .slice(0, Math.ceil(count / k))
        .map((prompt, p) => ({ ...prompt, samples: Math.min(k, count - p * k) }))
      let mark = now()
      const times: number[] = []
      // The model's part of a step ends when the first of its rows is chosen.
      const choose: Choose = ({ prompt, sample }) => {
        const first = prompt === 0 && sample === 0
        if (first) times.push(now() - mark)
        mark = now()
        return { token: 5, logprob: 0, finish: null }
      }
      await decoder.run(asked, choose, { maxNewTokens: 8 })
      prefill = times[0]
      const later = times.slice(1)
      steps.push([count, later.reduce((sum, value) => sum + value, 0) / later.length])
    }
    decoder.destroy()
    return { steps, prefill }
  }

  /** Milliseconds of choosing one token. */
  const choosingOne = async (): Promise<number> => {
    const prompt: Prompt = { tokens: Uint32Array.of(1), samples: 1, key: 1 }
    const choose = chooser({ ...GENERATION_DEFAULTS, maxNewTokens }, [prompt])
    const logits = Float32Array.from({ length: config.vocab }, (_, i) => ((i * 7919) % 1000) / 100)
    const call = () => choose({ prompt: 0, sample: 0, tokens: [], logits: logits.slice() })
    for (let i = 0; i < 50; i++) call()
    return (await time(() => Array.from({ length: 200 }, call))) / 200
  }

  /** Milliseconds a row: of the blocks and of the output layer, there and back; and of an optimiser step. */
  const training = async (total: number, learned: number) => {
    const length = 64
    const count = Math.max(1, Math.round(total / length))
    const sequences = Array.from({ length: count }, (_, s) =>
      Uint32Array.from({ length }, (_, t) => (s * 31 + t * 17) % config.vocab),
    )
    let pass!: Awaited<ReturnType<typeof openPass>>
    const forward = await time(async () => {
      pass = await openPass(device, model, adapter.layers, sequences)
    })
    const each = Math.max(1, Math.min(length, Math.round((learned / total) * length)))
    const rows = sequences.flatMap((_, s) => Array.from({ length: each }, (_, t) => pass.rowOf(s, length - each + t)))
    const x = pass.states(Uint32Array.from(rows))
    let found!: Awaited<ReturnType<typeof output.measure>>
    const there = await time(async () => {
      found = await output.measure(x, new Uint32Array(rows.length).fill(5))
    })
    const dx = device.tensor(x.shape)
    const back = await time(() => found.backward(new Float32Array(rows.length).fill(1e-3), dx))
    const backward = await time(() => pass.backward(dx, adapter.grads))
    for (const thing of [found, pass, dx]) thing.destroy()
    const apply = await time(async () => {
      optimiser.update(1e-6, updates++)
      await optimiser.norm()
    })
    adapter.clear()
    const [all, some] = [count * length, rows.length]
    return { forward: forward / all, backward: backward / all, there: there / some, back: back / some, apply }
  }

  return {
    async predict(rows: readonly RewardRow[]): Promise<Predicted> {
      const own = rows.map(({ id, prompt_ids: prompt, completion_ids: tokens }) => ({ group: id, prompt, tokens }))
      const learned = own.reduce((sum, { tokens }) => sum + tokens.length, 0)
      const { steps, prefill } = await decoding(rows)
      const stepMs = (count: number): number => {
        const at = steps.findIndex(([n]) => n >= count)
        const [n1, ms1] = steps[at]
        if (at === 0) return ms1
        const [n0, ms0] = steps[at - 1]
        return ms0 + ((count - n0) / (n1 - n0)) * (ms1 - ms0)
      }
      let drawing = prefill
      // The first token comes from the prompt; what ended is not computed further.
      for (let t = 1; ; t++) {
        const alive = own.filter(({ tokens }) => tokens.length > t).length
        if (alive === 0) break
        drawing += stepMs(alive)
      }
      const oneToken = await choosingOne()
      const total = rowsOf(own)
      // As many rows as a micro-batch has.
      const { forward, backward, there, back, apply } = await training(
        Math.min(total, device.kind === 'wasm' ? 1024 : 4096),
        learned * Math.min(1, (device.kind === 'wasm' ? 1024 : 4096) / total),
      )
      const update = total * (2 * forward + backward) + learned * (2 * there + back) + apply
      const shared = promptGroups(own)
      const unique = shared.reduce(
        (sum, { members, common }) =>
          sum + common + members.reduce((m, s) => m + own[s].prompt.length + own[s].tokens.length - common, 0),
        0,
      )
      const firsts = rows.filter((_, i) => i % k === 0)
      let apart: EncodedRow[] = []
      const encoding = await time(() => {
        apart = firsts.map(({ messages, completion }) =>
          reward.encode({ messages: [...messages!, { role: 'assistant', content: completion! }] }),
        )
      })
      const counted = apart.reduce((sum, { input_ids: ids }) => sum + ids.length, 0)
      const alone = await time(() => reward.score(apart))
      const text = (encoding / firsts.length) * rows.length
      const choosing = learned * oneToken
      return { drawing: drawing + choosing, rewards: (alone / counted) * unique + text, update, choosing, text }
    },
    destroy() {
      for (const thing of [optimiser, adapter, output, model]) thing.destroy()
    },
  }
}
