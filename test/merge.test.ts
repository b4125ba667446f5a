// Merging against PyTorch, rounding at ties, what else a merged directory holds, and the command with its failures.
import { readFileSync } from 'node:fs'
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice } from '../src/device/open.ts'
import { openDirectory } from '../src/files/disk.ts'
import { narrowF64 } from '../src/files/narrow.ts'
import {
  closeTensors,
  encodeSafetensors,
  openModelTensors,
  readTensorF32,
  type TensorData,
  widenBF16,
  widenF16,
} from '../src/files/safetensors.ts'
import { type ModelFiles, memoryFiles } from '../src/files/source.ts'
import { memoryStore } from '../src/files/store.ts'
import type { Adapter } from '../src/llama/adapter_files.ts'
import { mergeAdapter } from '../src/llama/merge.ts'
import { compareOutputs } from '../src/llama/merge_compare.ts'
import { readCheckpoint } from '../src/reward/checkpoint.ts'
import { fails } from './assert.ts'
import { openWorkplace } from './command.ts'
import { LORA_FOLDER, readArrays } from './lora_fixture.ts'
import { random } from './random.ts'

const CASES = ['untied', 'tied', 'odd', 'q8_0', 'reward']
const folderOf = (name: string, part: string) => fileURLToPath(new URL(`${name}/${part}`, LORA_FOLDER))
const filesOf = (name: string, part: string) => openDirectory(folderOf(name, part))
const bytesOf = (path: string) => new Uint8Array(readFileSync(new URL(path, LORA_FOLDER)))
const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

const widened = (values: Float32Array | Uint16Array, dtype: string): Float32Array => {
  const all = new Float32Array(values.length)
  if (values instanceof Float32Array) return values
  if (dtype === 'F16') widenF16(values, all)
  else widenBF16(values, all)
  return all
}

test('merged weights are those of PyTorch, rounded once', async () => {
  for (const name of CASES) {
    const out = memoryStore('out')
    const report = await mergeAdapter(await filesOf(name, 'model'), await filesOf(name, 'adapter'), out)
    const expected = await readArrays(new URL(`${name}/expected.safetensors`, LORA_FOLDER))
    const before = await readArrays(new URL(`${name}/model/model.safetensors`, LORA_FOLDER))
    const tensors = await openModelTensors(out)
    assert.equal([...tensors.keys()].sort(), [...before.keys()].sort(), name)
    let adapted = 0
    for (const [key, info] of tensors) {
      const merged = expected.get(`merged.${key}`)
      if (merged) adapted++
      else if (key === 'score.weight') continue
      assert.equal([...(await readTensorF32(info))], [...(merged ?? before.get(key)!)], `${name} ${key}`)
    }
    assert.ok(adapted > 0)
    assert.equal(
      report.tensors.map((one) => one.name).sort(),
      [...expected.keys()]
        .filter((key) => key.startsWith('merged.'))
        .map((key) => key.slice(7))
        .sort(),
    )
    // Half a unit of the last place of the largest weight, which is below 8.
    const unit = name === 'tied' ? 2 ** -6 : 2 ** -22
    assert.ok(report.largest.loss > unit / 64 && report.largest.loss <= unit, `${name} ${report.largest.loss}`)
    assert.equal(report.files, ['model.safetensors', 'config.json'])
    assert.is(report.outputs, null)
    const config = await out.open('config.json')
    const same = Buffer.from(await config!.read(0, config!.byteLength)).equals(bytesOf(`${name}/model/config.json`))
    assert.ok(same, `${name}: an unchanged configuration is copied`)
  }
})

test('a score head takes the place of the output layer, and the result is a reward model', async () => {
  const { num_labels: _, ...config } = JSON.parse(
    Buffer.from(bytesOf('reward/model/config.json')).toString(),
  ) as Record<string, unknown>
  const { tensors } = await openTensors('reward')
  const rename = (key: string) => (key === 'score.weight' ? 'lm_head.weight' : key)
  for (const bare of [false, true]) {
    const all = tensors.map((one) => ({
      ...one,
      name: bare ? rename(one.name).replace(/^model\./, '') : rename(one.name),
    }))
    const base = memoryFiles('base', {
      'config.json': text({ ...config, architectures: ['LlamaForCausalLM'] }),
      'model.safetensors': Buffer.concat(encodeSafetensors(all)),
    })
    const out = memoryStore('out')
    await mergeAdapter(base, await filesOf('reward', 'adapter'), out)
    const checkpoint = await readCheckpoint(out)
    assert.is(checkpoint.layout, 'classifier')
    assert.equal(checkpoint.config.architectures, ['LlamaForSequenceClassification'])
    assert.is(checkpoint.config.num_labels, 1)
    const adapter = await readArrays(new URL('reward/adapter/adapter_model.safetensors', LORA_FOLDER))
    assert.equal([...checkpoint.regression.weight], [...adapter.get('base_model.model.score.weight')!])
    const merged = await openModelTensors(out)
    assert.not(merged.has('lm_head.weight'))
    assert.ok(
      [...merged.keys()].every((key) => key.startsWith('model.') || key === 'score.weight'),
      'names of a classifier',
    )
  }
  const heads = [
    ...tensors,
    { name: 'regression_layer.weight', dtype: 'F32', shape: [1], data: new Float32Array(1) } as TensorData,
  ]
  const base = memoryFiles('base', {
    'config.json': text(config),
    'model.safetensors': Buffer.concat(encodeSafetensors(heads)),
  })
  await fails(
    async () => mergeAdapter(base, await filesOf('reward', 'adapter'), memoryStore('out')),
    /^base: has heads of its own \("regression_layer\.weight"\)/,
  )
})

async function openTensors(name: string): Promise<{ tensors: TensorData[] }> {
  const tensors: TensorData[] = []
  const opened = await openModelTensors(await filesOf(name, 'model'))
  for (const info of opened.values())
    tensors.push({ name: info.name, dtype: 'F32', shape: info.shape, data: await readTensorF32(info) })
  await closeTensors(opened)
  return { tensors }
}

/** A base in two shards with files around it. */
async function sharded() {
  const { tensors } = await openTensors('untied')
  const half = Math.ceil(tensors.length / 2)
  const parts = [tensors.slice(0, half), tensors.slice(half)]
  const names = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
  const weightMap = Object.fromEntries(parts.flatMap((part, i) => part.map(({ name }) => [name, names[i]])))
  const files: Record<string, Uint8Array> = {
    'config.json': bytesOf('untied/model/config.json'),
    'model.safetensors.index.json': text({ metadata: {}, weight_map: weightMap }),
  }
  for (const [i, part] of parts.entries()) files[names[i]] = Buffer.concat(encodeSafetensors(part))
  for (const file of ['tokenizer.json', 'generation_config.json', 'README.md', 'tokenizer.model'])
    files[file] = text(file)
  for (const file of ['pytorch_model.bin', 'adapter_config.json', 'calibration.safetensors', '.hidden'])
    files[file] = text(file)
  return { files, names, weightMap }
}

test('shards stay shards, other files are copied, and what would be wrong is left out', async () => {
  const { files, names, weightMap } = await sharded()
  const [whole, kept] = [memoryStore('whole'), new Map<string, Uint8Array>()]
  await mergeAdapter(await filesOf('untied', 'model'), await filesOf('untied', 'adapter'), whole)
  const steps: string[] = []
  const report = await mergeAdapter(
    memoryFiles('base', files),
    await filesOf('untied', 'adapter'),
    memoryStore('out', kept),
    {
      dtype: 'BF16',
      onTensor: (done, total) => steps.push(`${done}/${total}`),
      compare: async (merged, adapter) => {
        assert.ok((await openModelTensors(merged)).size > 0 && adapter.layers.length === 2)
        return 0.25
      },
    },
  )
  assert.is(report.outputs, 0.25)
  assert.is(steps[0], `0/${2 * Object.keys(weightMap).length}`)
  assert.is(steps.length, 2 * Object.keys(weightMap).length)
  assert.equal(report.leftOut, ['adapter_config.json', 'calibration.safetensors', 'pytorch_model.bin'])
  assert.equal(
    [...kept.keys()].sort(),
    [
      ...names,
      'model.safetensors.index.json',
      'tokenizer.json',
      'generation_config.json',
      'README.md',
      'tokenizer.model',
      'config.json',
    ].sort(),
  )
  assert.is(report.files[report.files.length - 1], 'config.json')
  for (const file of ['tokenizer.json', 'tokenizer.model']) assert.equal([...kept.get(file)!], [...text(file)])
  const index = JSON.parse(Buffer.from(kept.get('model.safetensors.index.json')!).toString())
  assert.equal(Object.keys(index.weight_map).sort(), Object.keys(weightMap).sort())
  const [tensors, exact] = [await openModelTensors(memoryStore('out', kept)), await openModelTensors(whole)]
  let bytes = 0
  for (const [name, info] of tensors) {
    assert.is(info.dtype, 'BF16')
    bytes += info.end - info.begin
    // Twice rounded by way of F32, which is once rounded unless the first result is a tie.
    const once = narrowF64(Float64Array.from(await readTensorF32(exact.get(name)!)), 'BF16')
    assert.equal([...(await readTensorF32(info))], [...widened(once, 'BF16')], name)
  }
  assert.is(index.metadata.total_size, bytes)
  assert.is(JSON.parse(Buffer.from(kept.get('config.json')!).toString()).torch_dtype, 'bfloat16')
})

test('float64 is rounded once, ties to even, to every type', () => {
  // The bits of F16 and BF16 around a number, and what must be nearest: the neighbour at the smaller distance, of two the even one.
  const draw = random(3)
  for (const dtype of ['F16', 'BF16'] as const) {
    const all = widened(
      Uint16Array.from({ length: 0x8000 }, (_, bits) => bits),
      dtype,
    )
    const count = dtype === 'F16' ? 0x7c00 : 0x7f80
    const values: number[] = []
    const expected: number[] = []
    for (let i = 0; i < 20000; i++) {
      const low = Math.floor(draw.next() * (count - 1))
      const [a, b] = [all[low], all[low + 1]]
      const middle = (a + b) / 2
      const even = low % 2 === 0 ? low : low + 1
      values.push(a, middle, middle * (1 - 2 ** -50), middle * (1 + 2 ** -50), -middle)
      expected.push(low, even, low, low + 1, even + 0x8000)
    }
    const found = narrowF64(Float64Array.from(values), dtype)
    const wrong = expected.findIndex((bits, i) => found[i] !== bits)
    assert.is(wrong, -1, `${dtype} ${values[wrong]} became ${found[wrong]}, expected ${expected[wrong]}`)
    const largest = all[count - 1]
    assert.equal(
      [...narrowF64(Float64Array.of(largest, largest * 2, Number.NaN, 0, -0), dtype)].map((bits) => bits & 0xffff),
      [count - 1, count, dtype === 'F16' ? 0x7e00 : 0x7fc0, 0, 0x8000],
    )
  }
  assert.equal(
    [...narrowF64(Float64Array.of(1 + 2 ** -24, 1 + 3 * 2 ** -24, 1 + 2 ** -24 + 2 ** -50), 'F32')],
    [1, 1 + 2 ** -22, 1 + 2 ** -23],
  )
})

test('numbers that a type cannot hold are refused by name', async () => {
  const { tensors } = await openTensors('untied')
  const norm = tensors.find(({ name }) => name === 'model.norm.weight')!
  ;(norm.data as Float32Array)[3] = 70000
  const base = memoryFiles('base', {
    'config.json': bytesOf('untied/model/config.json'),
    'model.safetensors': Buffer.concat(encodeSafetensors(tensors)),
  })
  const merge = async (dtype: 'F16' | 'BF16') =>
    mergeAdapter(base, await filesOf('untied', 'adapter'), memoryStore('out'), { dtype })
  await fails(
    () => merge('F16'),
    /model\.norm\.weight": 70000 at element 3 cannot be held by F16; choose another --dtype/,
  )
  assert.ok(await merge('BF16'))
})

test('what is not read back as it was written is an error', async () => {
  const kept = new Map<string, Uint8Array>()
  const store = memoryStore('out', kept)
  const damaging = {
    ...store,
    async write(file: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>) {
      await store.write(file, chunks)
      if (file === 'model.safetensors') kept.get(file)![kept.get(file)!.length - 9] ^= 1
    },
  }
  await fails(
    async () => mergeAdapter(await filesOf('untied', 'model'), await filesOf('untied', 'adapter'), damaging),
    /^out: tensor ".*" is not what was written/,
  )
})

test('outputs of F32 models differ by rounding alone, and a merge with another scaling shows', async () => {
  const device = await openDevice('wasm', { threads: 1 })
  for (const name of ['untied', 'odd', 'q8_0', 'reward']) {
    const [base, own] = [await filesOf(name, 'model'), await filesOf(name, 'adapter')]
    const compare = (merged: ModelFiles, adapter: Adapter) => compareOutputs(device, base, adapter, merged)
    const { outputs } = await mergeAdapter(base, own, memoryStore('out'), { compare })
    // Outputs of 1 to 10; sums of up to 64 terms, a dozen of them one after the other.
    assert.ok(outputs! < 10 * 64 * 12 * 2 ** -24, `${name}: ${outputs}`)
    const wrong = (merged: ModelFiles, { layers, ...rest }: Adapter) => {
      const halved = Object.fromEntries(
        Object.entries(layers[1]!).map(([key, map]) => [key, { ...map, scaling: 1.01 * map.scaling }]),
      )
      return compare(merged, { ...rest, layers: [layers[0]!, halved] })
    }
    assert.ok((await mergeAdapter(base, own, memoryStore('out'), { compare: wrong })).outputs! > 3e-3, name)
  }
  await device.destroy()
})

test('the command makes a directory of its own and touches no other', async () => {
  const work = await openWorkplace()
  try {
    const at = (name: string) => join(work.folder, name)
    await cp(folderOf('tied', 'model'), at('base'), { recursive: true })
    await cp(folderOf('tied', 'adapter'), at('adapter'), { recursive: true })
    await mkdir(at('base/original'))
    await writeFile(at('base/tokenizer.json'), '{}')
    const args = (out: string, ...more: string[]) => [
      'merge',
      '--model',
      'base',
      '--adapter',
      'adapter',
      '--out',
      out,
      ...more,
    ]
    const { code, out, err } = await work.pinball(args('merged', '--json'))
    assert.is(code, 0, err)
    assert.match(err, /note: the folder original of the base is not copied/)
    const report = JSON.parse(out)
    assert.is(report.adapted, 4)
    // bf16 weights, two layers: what rounding does to log-probabilities.
    assert.ok(report.largest_output_difference > 0 && report.largest_output_difference < 0.5)
    assert.ok(report.largest_loss > 0 && report.tensors[0].loss_share > 0)
    assert.equal((await readdir(at('merged'))).sort(), ['config.json', 'model.safetensors', 'tokenizer.json'])
    assert.equal((await readdir(work.folder)).sort(), ['adapter', 'base', 'merged'])
    assert.match(
      (await work.pinball(args('again'))).out,
      /^again: 4 maps merged, 3 files, read back and compared\nlargest loss by rounding: \S+ \(model.*\nlargest difference of outputs: 0\.0/,
    )
    assert.ok((await readFile(at('again/model.safetensors'))).equals(await readFile(at('merged/model.safetensors'))))

    await work.refused(args('merged'), 'merged: must be missing or empty, it has "config.json"; choose another --out')
    await work.refused(args('base'), /^pinball: --out: must not be what --model reads/, 2)
    await work.refused(args('adapter'), /^pinball: --out: must not be what --adapter reads/, 2)
    await work.refused(args('base/tokenizer.json'), /^pinball: /, 2)
    await work.refused(args('no/such'), /no such directory: no/)
    await work.refused(
      ['merge', '--model', 'base', '--adapter', 'base', '--out', 'x'],
      /^pinball: base\/adapter_config\.json: is missing/,
    )
    await work.refused(args('x', '--dtype', 'f8'), /--dtype/, 2)
    assert.not(
      (await readdir(work.folder)).some((name) => name.startsWith('x')),
      'nothing is left of a failure',
    )

    // A folder of that name that is not ours stays; one that a merge was cut off in is used.
    await mkdir(at('y.partial'))
    await writeFile(at('y.partial/mine'), 'mine')
    await work.refused(args('y'), /y\.partial: must be missing, empty or hold work of "merge", it has "mine"/)
    assert.is(await readFile(at('y.partial/mine'), 'utf8'), 'mine')
    await writeFile(at('y.partial/pinball-work.json'), '{"pinball":"work","command":"merge","settings":{}}')
    await work.refused(args('y'), /y\.partial: has "mine", which no merge wrote; move it away/)
    await rm(at('y.partial/mine'))
    await writeFile(at('y.partial/model-00001-of-00009.safetensors'), 'cut off')
    const { out: blind } = await work.pinball(args('y', '--no-compare', '--json'))
    assert.is(JSON.parse(blind).largest_output_difference, null)
    assert.equal((await readdir(at('y'))).sort(), ['config.json', 'model.safetensors', 'tokenizer.json'])
  } finally {
    await work.remove()
  }
})

test.run()
