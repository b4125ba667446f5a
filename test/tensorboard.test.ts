// Event files of TensorBoard: bytes that its own reader has taken, checksums, and where a file is cut when training goes on.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { crc32c } from '../src/files/crc32.ts'
import { joinBytes } from '../src/files/source.ts'
import { firstEvent, keptBytes, scalarEvent, tagOf } from '../src/train/tensorboard.ts'

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

test('checksums are those of RFC 3720', () => {
  const bytes = (make: (i: number) => number) => Uint8Array.from({ length: 32 }, (_, i) => make(i))
  assert.is(crc32c(bytes(() => 0)), 0x8a9136aa)
  assert.is(crc32c(bytes(() => 0xff)), 0x62a8ab43)
  assert.is(crc32c(bytes((i) => i)), 0x46dd794e)
  assert.is(crc32c(bytes((i) => 31 - i)), 0x113fdb5c)
  assert.is(crc32c(new TextEncoder().encode('123456789')), 0xe3069283)
})

test('records are the bytes that the record writer of TensorBoard 2.21 writes', () => {
  assert.is(
    hexOf(firstEvent(1700000000.25)),
    '1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9',
  )
  assert.is(
    hexOf(scalarEvent(300, 1700000001.5, { 'train/loss': 0.625, 'eval/loss': Infinity })),
    '33000000000000000ca720560900006040fc54d94110ac022a250a110a0a747261696e2f6c6f7373150000203f0a100a0965' +
      '76616c2f6c6f7373150000807ff20694a4',
  )
  assert.is(
    hexOf(scalarEvent(2 ** 31 + 400, 0.5, { [`train/${'x'.repeat(140)}`]: -1.5 })),
    'af000000000000006e05d52309000000000000e03f1090838080082a9d010a9a010a9201747261696e2f7878787878787878' +
      '7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878' +
      '7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878' +
      '7878787878787878787878787878787878787878787878787878787878787878150000c0bf5e03101e',
  )
})

test('a file is cut after the last whole record of a step', () => {
  const records = [
    firstEvent(1),
    ...[1, 2, 2, 300, 70000].map((step) => scalarEvent(step, step, { 'train/loss': step })),
  ]
  const file = joinBytes(records)
  const upTo = (count: number) => joinBytes(records.slice(0, count)).length
  for (const [step, count] of [
    [0, 1],
    [1, 2],
    [2, 4],
    [299, 4],
    [300, 5],
    [69999, 5],
    [70000, 6],
    [1e9, 6],
  ])
    assert.is(keptBytes(file, step), upTo(count), `step ${step}`)
  assert.is(keptBytes(file.subarray(0, file.length - 1), 1e9), upTo(5), 'a record that is cut off')
  assert.is(keptBytes(file.subarray(0, upTo(5) + 7), 1e9), upTo(5), 'a length that is cut off')
  const damaged = file.slice()
  damaged[upTo(2) + 20] ^= 1
  assert.is(keptBytes(damaged, 1e9), upTo(2), 'a damaged record')
  const absurd = file.slice()
  absurd[upTo(3) + 5] ^= 0x7f
  assert.is(keptBytes(absurd, 1e9), upTo(3), 'a damaged length')
  assert.is(keptBytes(new Uint8Array(), 5), 0)
  assert.is(keptBytes(new TextEncoder().encode('this is no event file at all, but text'), 5), 0)
})

test('numbers of the log get the tags that transformers gives them', () => {
  assert.equal(['loss', 'eval_loss', 'grad_norm'].map(tagOf), ['train/loss', 'eval/loss', 'train/grad_norm'])
})

test.run()
