// Loss and gradients of LoRA adapters on every device, against PyTorch and PEFT, and through all ways that must agree.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import type { Tensor } from '../src/device/tensor.ts'
import { openModelTensors } from '../src/files/safetensors.ts'
import { memoryFiles } from '../src/files/source.ts'
import { type Adapter, readAdapter } from '../src/llama/adapter_files.ts'
import { type Backbone, openBackbone } from '../src/llama/forward.ts'
import { loadAdapter } from '../src/llama/lora_adapter.ts'
import { openOutputLayer } from '../src/llama/output_layer.ts'
import { type LoraGradients, openPass, type PassOptions } from '../src/llama/training_pass.ts'
import { closeDevices, testDevices } from './device.ts'
import { folderFiles, LORA_CASES, loraCase } from './lora_fixture.ts'

const devices = await testDevices()

interface Opened {
  readonly model: Backbone
  readonly adapter: Adapter
  readonly output: Awaited<ReturnType<typeof openOutputLayer>>
}

async function open(device: Device, name: string): Promise<Opened> {
  const files = memoryFiles(name, folderFiles(`${name}/model`))
  const tensors = await openModelTensors(files)
  const config: unknown = JSON.parse(new TextDecoder().decode(folderFiles(`${name}/model`)['config.json']))
  const model = await openBackbone(device, { name, config, tensors })
  const info = tensors.get('lm_head.weight') ?? tensors.get('model.embed_tokens.weight')!
  const output = await openOutputLayer(device, model.config, info)
  return { model, output, adapter: await readAdapter(memoryFiles(name, folderFiles(`${name}/adapter`)), model.config) }
}

/** Loss, log-probabilities and gradients of a batch: by names of the adapter's file. */
async function run(device: Device, { model, output, adapter }: Opened, batch: Batch, options: PassOptions = {}) {
  const lora = loadAdapter(device, adapter, model.config)
  const owned: Tensor[] = []
  const zeros = (shape: readonly number[]) => {
    const tensor = device.tensor(shape, { data: new Float32Array(shape[0]! * shape[1]!) })
    owned.push(tensor)
    return tensor
  }
  const grads: LoraGradients = lora.layers.map((maps) =>
    Object.fromEntries(
      Object.entries(maps).map(([name, { a, b }]) => [name, { a: zeros(a.shape), b: zeros(b.shape) }]),
    ),
  )
  const pass = await openPass(
    device,
    model,
    lora.layers,
    batch.map(({ tokens }) => tokens),
    options,
  )
  const rows: number[] = []
  const wanted: number[] = []
  const learned: boolean[] = []
  for (const [s, { tokens, labels }] of batch.entries())
    for (let t = 0; t + 1 < tokens.length; t++) {
      rows.push(pass.rowOf(s, t))
      wanted.push(tokens[t + 1]!)
      learned.push(labels[t + 1] !== -100)
    }
  const order = rows.map((_, i) => i).sort((a, b) => rows[a]! - rows[b]!)
  const sorted = <T>(values: readonly T[]) => order.map((i) => values[i]!)
  const x = pass.states(Uint32Array.from(sorted(rows)))
  const measured = await output.measure(x, Uint32Array.from(sorted(wanted)))
  const count = learned.filter(Boolean).length
  const coefficients = Float32Array.from(sorted(learned), (own) => (own ? 1 / count : 0))
  const dx = device.tensor(x.shape, { label: 'dx' })
  measured.backward(coefficients, dx)
  await pass.backward(dx, grads)
  const loss = -measured.logprobs.reduce((sum, value, i) => sum + coefficients[i]! * value, 0)
  const found: Record<string, Float32Array> = {}
  for (const [layer, maps] of grads.entries())
    for (const [name, { a, b }] of Object.entries(maps)) {
      const module = `${/gate|up|down/.test(name) ? 'mlp' : 'self_attn'}.${name}`
      const at = `model.layers.${layer}.${module}`
      found[`${at}.lora_A.weight`] = await a.readF32()
      found[`${at}.lora_B.weight`] = transpose(await b.readF32(), b.shape[0]!)
    }
  const logprobs = new Float32Array(measured.logprobs.length)
  for (const [place, i] of order.entries()) logprobs[i] = measured.logprobs[place]!
  for (const thing of [pass, measured, lora, dx, ...owned]) thing.destroy()
  return { loss, logprobs, grads: found, entropies: measured.entropies }
}

type Batch = readonly { readonly tokens: Uint32Array<ArrayBuffer>; readonly labels: Int32Array }[]

/** [r, O] to [O, r] */
function transpose(values: Float32Array, rows: number): Float32Array {
  const columns = values.length / rows
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!)
}

function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.is(actual.length, expected.length)
  let [worst, scale] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!))
    scale = Math.max(scale, Math.abs(expected[i]!))
  }
  return worst / scale
}

async function batchOf(
  name: string,
): Promise<{ batch: Batch; expected: Awaited<ReturnType<typeof loraCase>>['expected'] }> {
  const { batch, expected } = await loraCase(name)
  const own = batch.map(({ tokens, labels }) => ({
    tokens: Uint32Array.from(tokens as ArrayLike<number>),
    labels: Int32Array.from(labels as ArrayLike<number>),
  }))
  return { batch: own, expected }
}

for (const device of devices) {
  for (const name of LORA_CASES) {
    test(`${name}: PyTorch's loss and gradients on ${device.description}`, async () => {
      const { batch, expected } = await batchOf(name)
      const opened = await open(device, name)
      const { loss, grads, logprobs } = await run(device, opened, batch)
      assert.ok(Math.abs(loss / expected.get('loss')![0]! - 1) < 1e-5, `loss ${loss}, PyTorch ${expected.get('loss')}`)
      let at = 0
      for (const [i, { tokens }] of batch.entries()) {
        const own = logprobs.subarray(at, at + tokens.length - 1)
        at += tokens.length - 1
        assert.ok(relative(own, expected.get(`logprobs_${i}`)!) < 2e-5, `log-probabilities of ${i}`)
      }
      for (const [key, grad] of Object.entries(grads)) {
        const error = relative(grad, expected.get(`grad.base_model.model.${key}`)!)
        assert.ok(error < 1e-4, `${key}: ${error}`)
      }
      opened.output.destroy()
      opened.model.destroy()
    })
  }

  test(`keeping and computing again give the same bits on ${device.description}`, async () => {
    const { batch } = await batchOf('untied')
    const opened = await open(device, 'untied')
    const dropout = { share: 0.25, keys: batch.map((_, i) => i + 7) }
    const kept = await run(device, opened, batch, { dropout })
    const again = await run(device, opened, batch, { dropout, checkpointing: true })
    assert.equal(again, kept)
    const without = await run(device, opened, batch)
    assert.ok(Math.abs(without.loss - kept.loss) > 1e-4, 'dropout does something')
    opened.output.destroy()
    opened.model.destroy()
  })
}

test('devices close', closeDevices)

test.run()
