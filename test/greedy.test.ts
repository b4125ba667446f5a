// Greedy continuations: those of transformers for small random models, and of a trained one whose text is known (opt-in).
//
// The trained model is stories260K of llama2.c: PINBALL_STORIES names a folder with stories260K.bin and tok512.bin.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { encodeSafetensors, openModelTensors } from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles, readText } from '../src/files/source.ts'
import type { Choose } from '../src/generate/continuation.ts'
import { openDecoder } from '../src/generate/decoding.ts'
import { parseLlamaConfig } from '../src/llama/config.ts'
import { openBackbone } from '../src/llama/forward.ts'
import { openOutputLayer, outputInfo } from '../src/llama/output_layer.ts'
import { moduleOf } from '../src/llama/weights.ts'
import { closeDevices, testDevices } from './device.ts'
import { fixtureJson, fixtureModel, fixtureModels } from './fixture.ts'

test.after(closeDevices)

const greedy: Choose = ({ logits }) => ({
  token: logits.reduce((best, logit, token) => (logit > logits[best]! ? token : best), 0),
  logprob: 0,
  finish: null,
})

async function continueAll(
  device: Device,
  files: ModelFiles,
  prompts: readonly (readonly number[])[],
  maxNewTokens: number,
  storage: 'f32' | 'f16' = 'f32',
): Promise<number[][]> {
  const json = JSON.parse((await readText(files, 'config.json'))!) as unknown
  const tensors = await openModelTensors(files)
  const model = await openBackbone(device, { name: files.name, config: json, tensors })
  const output = await openOutputLayer(device, model.config, outputInfo(tensors, model.config)!)
  const decoder = openDecoder({ device, model, output, adapter: [] }, { storage })
  try {
    const rows = prompts.map((tokens, key) => ({ tokens: Uint32Array.from(tokens), samples: 1, key }))
    return (await decoder.run(rows, greedy, { maxNewTokens })).map(({ tokens }) => [...tokens])
  } finally {
    model.destroy()
    output.destroy()
  }
}

test('greedy continuations are those of transformers', async () => {
  type Rows = { readonly prompt: number[]; readonly tokens: number[] }[]
  const expected = await fixtureJson<Record<string, Rows>>('greedy.json')
  assert.equal(Object.keys(expected).sort(), (await fixtureModels('llama')).sort())
  for (const device of await testDevices()) {
    for (const [name, rows] of Object.entries(expected)) {
      const files = await fixtureModel(`llama/${name}`)
      const found = await continueAll(
        device,
        files,
        rows.map(({ prompt }) => prompt),
        40,
      )
      assert.equal(
        found,
        rows.map(({ tokens }) => tokens),
        `${name}, ${device.description}`,
      )
    }
  }
})

/** What greedy search from the first token writes, by llama2.c. */
const STORY =
  'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. ' +
  'She wanted to play with it, but it was too high.'

/** Reads a checkpoint of llama2.c as a model directory in memory. */
async function readCheckpoint(bytes: Uint8Array): Promise<ModelFiles> {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const [D, F, L, H, G, V, T] = Array.from({ length: 7 }, (_, i) => view.getInt32(4 * i, true)) as number[]
  const C = D / H
  let at = 28
  const take = (...shape: number[]) => {
    const size = shape.reduce((a, b) => a * b, 1)
    const data = new Float32Array(bytes.slice(at, at + 4 * size).buffer)
    at += 4 * size
    return { shape, data }
  }
  const tensors = new Map([['model.embed_tokens', take(V, D)]])
  const perLayer = (name: Parameters<typeof moduleOf>[0], ...shape: number[]) => {
    for (let layer = 0; layer < L; layer++) tensors.set(`model.layers.${layer}.${moduleOf(name)}`, take(...shape))
  }
  perLayer('input_layernorm', D)
  perLayer('q_proj', H * C, D)
  perLayer('k_proj', G * C, D)
  perLayer('v_proj', G * C, D)
  perLayer('o_proj', D, H * C)
  perLayer('post_attention_layernorm', D)
  perLayer('gate_proj', F, D)
  perLayer('down_proj', D, F)
  perLayer('up_proj', F, D)
  tensors.set('model.norm', take(D))
  assert.is(at + 4 * T * C, bytes.length, 'tables of the rotary embedding follow')
  // llama2.c turns neighbouring channels (2 e, 2 e + 1), Hugging Face's form e and e + C / 2.
  for (const [name, { shape, data }] of tensors) {
    if (!/[qk]_proj$/.test(name)) continue
    const from = data.slice()
    const [rows, columns] = shape as [number, number]
    for (let row = 0; row < rows; row++) {
      const c = row % C
      const old = row - c + (c < C / 2 ? 2 * c : 2 * (c - C / 2) + 1)
      data.set(from.subarray(old * columns, (old + 1) * columns), row * columns)
    }
  }
  const chunks = encodeSafetensors(
    [...tensors].map(([name, { shape, data }]) => ({ name: `${name}.weight`, dtype: 'F32', shape, data })),
  )
  const config = {
    model_type: 'llama',
    vocab_size: V,
    hidden_size: D,
    intermediate_size: F,
    num_hidden_layers: L,
    num_attention_heads: H,
    num_key_value_heads: G,
    rms_norm_eps: 1e-5,
    max_position_embeddings: T,
    tie_word_embeddings: true,
  }
  parseLlamaConfig(config, 'stories260K')
  return memoryFiles('stories260K', {
    'config.json': new TextEncoder().encode(JSON.stringify(config)),
    'model.safetensors': new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()),
  })
}

/** The texts of llama2.c's vocabulary: for each its score (f32), its length (i32) and its bytes. */
function readVocabulary(bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const texts: string[] = []
  for (let at = 4; at < bytes.length; ) {
    const length = view.getInt32(at + 4, true)
    texts.push(new TextDecoder().decode(bytes.subarray(at + 8, at + 8 + length)))
    at += 8 + length
  }
  return texts
}

const folder = process.env.PINBALL_STORIES
const SKIPPED = 'set PINBALL_STORIES to a folder with stories260K.bin and tok512.bin of llama2.c'

if (folder === undefined || !existsSync(join(folder, 'stories260K.bin'))) {
  console.log(`greedy.test.ts: SKIPPED the story of stories260K, it is opt-in: ${SKIPPED}`)
  test.skip(`the story of stories260K is that of llama2.c (opt-in, ${SKIPPED})`)
} else {
  test('the story of stories260K is that of llama2.c', async () => {
    const read = (name: string) => new Uint8Array(readFileSync(join(folder, name)))
    const files = await readCheckpoint(read('stories260K.bin'))
    const vocabulary = readVocabulary(read('tok512.bin'))
    assert.is(vocabulary.length, 512)
    for (const device of await testDevices()) {
      for (const storage of ['f32', 'f16'] as const) {
        const [tokens] = await continueAll(device, files, [[1]], 80, storage)
        const text = tokens!.map((token) => vocabulary[token]).join('')
        assert.is(text.trim().slice(0, STORY.length), STORY, `${device.description}, ${storage}`)
      }
    }
  })
}

test.run()
