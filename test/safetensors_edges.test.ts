// The edges of safetensors and of text: sizes of every type, limits, empty tensors, rounding to bf16, what templates are given.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  encodeSafetensors,
  narrowBF16,
  openSafetensors,
  readTensor,
  readTensorF32,
  type SafetensorsDType,
  widenBF16,
} from '../src/files/safetensors.ts'
import { memoryFiles, memorySource } from '../src/files/source.ts'
import { renderText } from '../src/text/chat.ts'
import { loadTokenizer } from '../src/text/tokenizer.ts'
import { fails } from './assert.ts'
import { joined, json } from './qrm.ts'
import { random } from './random.ts'

/** A file with this text as its header and so many bytes of data, each its place. */
function raw(header: string, bytes: number): Uint8Array {
  const text = new TextEncoder().encode(header)
  const file = new Uint8Array(8 + text.length + bytes)
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true)
  file.set(text, 8)
  for (let i = 0; i < bytes; i++) file[8 + text.length + i] = i
  return file
}

const open = (file: Uint8Array) => openSafetensors(memorySource('f', file))

test('every type has its size, in reading and in writing', async () => {
  const sizes: Record<SafetensorsDType, number> = {
    F64: 8,
    I64: 8,
    U64: 8,
    F32: 4,
    I32: 4,
    U32: 4,
    F16: 2,
    BF16: 2,
    I16: 2,
    U16: 2,
    F8_E5M2: 1,
    F8_E4M3: 1,
    I8: 1,
    U8: 1,
    BOOL: 1,
  }
  for (const [type, size] of Object.entries(sizes)) {
    const dtype = type as SafetensorsDType
    const { tensors } = await open(
      raw(`{"a":{"dtype":"${dtype}","shape":[3],"data_offsets":[0,${3 * size}]}}`, 3 * size),
    )
    assert.equal(
      [...(await readTensor(tensors.get('a')!))],
      Array.from({ length: 3 * size }, (_, i) => i),
    )
    const data = (bytes: number) => [{ name: 'a', dtype, shape: [3], data: new Uint8Array(bytes) }]
    assert.is(joined(encodeSafetensors(data(3 * size))).length % 8, (3 * size) % 8)
    for (const bytes of [3 * size - 1, 3 * size + 1]) {
      const message = `safetensors: tensor "a": ${dtype} [3] needs ${3 * size} bytes, got ${bytes}`
      await fails(() => encodeSafetensors(data(bytes)), message)
    }
  }
})

test('sixteen dimensions are read, seventeen are not; a header has two bytes at least', async () => {
  const shape = (rank: number) => JSON.stringify(new Array(rank).fill(1))
  const file = (rank: number) => raw(`{"a":{"dtype":"U8","shape":${shape(rank)},"data_offsets":[0,1]}}`, 1)
  assert.is((await open(file(16))).tensors.get('a')!.shape.length, 16)
  await fails(() => open(file(17)), 'f: tensor "a": 17 dimensions are above the limit of 16')
  assert.is((await open(raw('{}', 0))).tensors.size, 0)
  for (const header of ['', '{'])
    await fails(() => open(raw(header, 8)), `f: header of ${header.length} bytes is too short to be a JSON object`)
})

test('tensors without values may lie anywhere between others, whatever the order of the header', async () => {
  const entry = (name: string, count: number, begin: number) =>
    `"${name}":{"dtype":"U8","shape":[${count}],"data_offsets":[${begin},${begin + count}]}`
  const entries = [entry('b', 2, 1), entry('none', 0, 1), entry('a', 1, 0), entry('last', 0, 3), entry('first', 0, 0)]
  for (const order of [entries, [...entries].reverse()]) {
    const { tensors } = await open(raw(`{${order.join(',')}}`, 3))
    assert.equal([...(await readTensor(tensors.get('b')!))], [1, 2])
    assert.is(tensors.size, 5)
  }
})

test('bf16 is the nearest of two neighbours, the even one of two that are as near', () => {
  const f32 = (bits: number) => new Float32Array(Uint32Array.of(bits).buffer)
  const narrow = (bits: number) => narrowBF16(f32(bits))[0]
  const draw = random(81)
  const highs = [0, 1, 0x3f80, 0x3f81, 0x7f7e, 0x7f7f, ...draw.integers(200, 0, 0x7f7f)]
  for (const sign of [0, 0x8000]) {
    for (const high of highs.map((value) => value | sign)) {
      for (const [low, up] of [
        [0, 0],
        [0x7fff, 0],
        [0x8000, high & 1],
        [0x8001, 1],
        [0xffff, 1],
      ]) {
        assert.is(narrow(((high << 16) | low) >>> 0), high + up, `${high.toString(16)} ${low.toString(16)}`)
      }
    }
    // Infinity stays, and what is NaN stays NaN wherever its bits are.
    assert.is(narrow(((0x7f80 | sign) << 16) >>> 0), 0x7f80 | sign)
    for (const low of [0x00000001, 0x00008000, 0x0000ffff, 0x003fffff, 0x00400000, 0x007fffff]) {
      const wide = new Float32Array(1)
      widenBF16(Uint16Array.of(narrow(((sign << 16) | 0x7f800000 | low) >>> 0)), wide)
      assert.ok(Number.isNaN(wide[0]), low.toString(16))
    }
  }
  // A part of a larger array is narrowed, not its beginning.
  assert.equal([...narrowBF16(Float32Array.of(9, 9, 1, 2).subarray(2))], [0x3f80, 0x4000])
})

test('all f16 are widened exactly', async () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const { tensors } = await open(joined(encodeSafetensors([{ name: 'a', dtype: 'F16', shape: [65536], data: bits }])))
  const values = await readTensorF32(tensors.get('a')!)
  for (const [i, value] of values.entries()) {
    const [exponent, fraction] = [(i >> 10) & 31, i & 1023]
    const sign = i >> 15 ? -1 : 1
    const size = exponent === 0 ? (fraction / 1024) * 2 ** -14 : (1 + fraction / 1024) * 2 ** (exponent - 15)
    const expected = exponent < 31 ? size : fraction === 0 ? Infinity : Number.NaN
    if (!Object.is(value, sign * expected)) assert.unreachable(`${i.toString(16)}: ${value}, not ${sign * expected}`)
  }
})

/** A tokenizer of letters with these settings. */
function letters(settings: Record<string, unknown>, vocabulary?: string) {
  const vocab = Object.fromEntries(
    [...'abc', '<s>', '<u>', '<m>', '<c>', '<p>', '<e>', '<x>'].map((text, i) => [text, i]),
  )
  const model = { type: 'BPE', vocab, merges: [], dropout: null, byte_fallback: false, ignore_merges: false }
  const base = { added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, model }
  const files = { 'tokenizer.json': json(base), 'tokenizer_config.json': json(settings) }
  if (vocabulary !== undefined) files['tokenizer.json'] = new TextEncoder().encode(vocabulary)
  return loadTokenizer(memoryFiles('t', files))
}

test('a template sees every special token, role and content alone, and neither tools nor documents', async () => {
  const special = {
    bos_token: '<s>',
    eos_token: '<e>',
    unk_token: '<u>',
    sep_token: '<x>',
    pad_token: { content: '<p>' },
    cls_token: '<c>',
    mask_token: '<m>',
  }
  const names = Object.keys(special)
  const template = [
    ...names.map((name) => `{{ ${name} }}`),
    '{% if tools is none and documents is none %}ok{% endif %}',
    '{% for m in messages %}{{ m.role }}={{ m.content }}{% if m.weight is defined %}!{% endif %}{% endfor %}',
  ].join('')
  const tokenizer = (await letters({ ...special, chat_template: template }))!
  const message = { role: 'a', content: 'b', weight: 3 }
  assert.is(renderText(tokenizer, [message], false), '<s><e><u><x><p><c><m>oka=b')
  assert.equal(Object.keys(tokenizer.specialTokens).sort(), [...names].sort())
})

test('a tokenizer that is no object is refused by name', async () => {
  for (const text of ['null', '5', '[]', '{}', '{"model":null}']) {
    await fails(() => letters({}, text), 't/tokenizer.json: must be an object with a "model"')
  }
})

test.run()
