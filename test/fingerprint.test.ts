// The fingerprint of a model directory against a second program of the same definition: what it covers, and what it does not.
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { BlockHash, digest, hex } from '../src/files/hash.ts'
import { encodeSafetensors, openModelTensors, type TensorData } from '../src/files/safetensors.ts'
import { memoryFiles } from '../src/files/source.ts'
import { fingerprint } from '../src/reward/fingerprint.ts'
import { joined } from './qrm.ts'

const MiB = 2 ** 20
const sha256 = (data: string | Uint8Array) => createHash('sha256').update(data).digest('hex')

/** Text files that say how to use a model, in the order in which they are hashed. */
const TEXTS: Readonly<Record<string, string>> = {
  'config.json': '{"model_type":"llama"}',
  'pinball.json': '{"mixture":"sum"}',
  'tokenizer.json': '{"model":{}}',
  'tokenizer_config.json': '{}',
  'chat_template.jinja': '{{ messages }}',
}

function tensorsOf(values: readonly number[] = [1, 2, 3, 4, 5, 6]): TensorData[] {
  return [
    { name: 'b"\n', dtype: 'U8', shape: [1], data: Uint8Array.of(7) },
    { name: 'z', dtype: 'F32', shape: [2, 3], data: Float32Array.from(values) },
  ]
}

function print(texts: Readonly<Record<string, string>>, tensors: readonly TensorData[]): Promise<string> {
  const bytes = Object.entries(texts).map(([name, text]) => [name, new TextEncoder().encode(text)] as const)
  const files = memoryFiles('m', {
    ...Object.fromEntries(bytes),
    'model.safetensors': joined(encodeSafetensors(tensors)),
  })
  return openModelTensors(files).then((infos) => fingerprint(files, infos))
}

test('is what a second program makes of the same bytes, by blocks of 8 MiB', async () => {
  const big = new Uint8Array(16 * MiB + 5).map((_, i) => Math.imul(i, 0x9e3779b1) >>> 24)
  // The file has z first, whose type is the widest; lines are in the order of names.
  const tensors = [...tensorsOf(), { name: 'big', dtype: 'U8', shape: [big.length], data: big } as const]
  const blocks = [0, 8, 16].map((at) => sha256(big.subarray(at * MiB, (at + 8) * MiB)))
  const lines = [
    'pinball model 1',
    ...Object.entries(TEXTS).map(([name, text]) => `file ${name} ${sha256(text)}`),
    `tensor "b\\"\\n" U8 [1] ${sha256(Uint8Array.of(7))}`,
    `tensor "big" U8 [${big.length}] ${blocks.join(' ')}`,
    `tensor "z" F32 [2,3] ${sha256(new Uint8Array(Float32Array.of(1, 2, 3, 4, 5, 6).buffer))}`,
  ]
  assert.is(await print(TEXTS, tensors), sha256(`${lines.join('\n')}\n`))
  // A tensor of whole blocks has no empty one after them.
  const even = { name: 'e', dtype: 'U8', shape: [8 * MiB], data: big.subarray(0, 8 * MiB) } as const
  assert.is(await print({}, [even]), sha256(`pinball model 1\ntensor "e" U8 [${8 * MiB}] ${blocks[0]}\n`))
})

test('changes with each file, name, type, shape and value, and with nothing else', async () => {
  const whole = await print(TEXTS, tensorsOf())
  const seen = new Map([[whole, 'the whole']])
  const differs = async (what: string, texts: Readonly<Record<string, string>>, tensors: readonly TensorData[]) => {
    const found = await print(texts, tensors)
    assert.not.ok(seen.has(found), `${what} has the fingerprint of ${seen.get(found)}`)
    seen.set(found, what)
  }
  for (const name of Object.keys(TEXTS)) {
    await differs(`another ${name}`, { ...TEXTS, [name]: `${TEXTS[name]} ` }, tensorsOf())
    const { [name]: _, ...others } = TEXTS
    await differs(`no ${name}`, others, tensorsOf())
  }
  const [b, z] = tensorsOf()
  await differs('another value', TEXTS, tensorsOf([1, 2, 3, 4, 5, 7]))
  await differs('another name', TEXTS, [b, { ...z, name: 'c' }])
  await differs('another shape', TEXTS, [b, { ...z, shape: [3, 2] }])
  await differs('another type', TEXTS, [b, { ...z, dtype: 'I32' }])
  await differs('one tensor less', TEXTS, [b])
  assert.is(await print({ ...TEXTS, 'README.md': 'x', 'metrics.json': '{}' }, tensorsOf()), whole)
  assert.is(await print(TEXTS, [z, b]), whole)
})

test('a digest has 64 lower-case hexadecimal digits, leading zeros too', async () => {
  for (let i = 0; i < 64; i++) {
    const bytes = Uint8Array.of(i)
    assert.is(await digest(bytes), sha256(bytes))
  }
})

test('bytes that come in pieces have the hash of the hashes of their blocks, whatever the pieces', async () => {
  const bytes = new Uint8Array(16 * MiB + 5).map((_, i) => Math.imul(i, 0x9e3779b1) >>> 24)
  for (const length of [0, 1, 8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 16 * MiB + 5]) {
    const hashes: Buffer[] = []
    for (let at = 0; at < length; at += 8 * MiB) {
      hashes.push(Buffer.from(sha256(bytes.subarray(at, Math.min(length, at + 8 * MiB))), 'hex'))
    }
    for (const piece of [3 * MiB + 1, 32 * MiB]) {
      const hash = new BlockHash()
      for (let at = 0; at < length; at += piece) await hash.update(bytes.subarray(at, Math.min(length, at + piece)))
      assert.is(hash.length, length)
      assert.is(hex(await hash.result()), sha256(Buffer.concat(hashes)), `${length} bytes in pieces of ${piece}`)
    }
  }
})

test.run()
