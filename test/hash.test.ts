// SHA-256 of bytes that come in pieces, against Web Crypto.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { digest } from '../src/files/hash.ts'
import { Sha256 } from '../src/files/sha256.ts'
import { random } from './random.ts'

test('any length, in any pieces', async () => {
  const draw = random(1)
  const all = Uint8Array.from(draw.integers(5000, 0, 256))
  for (const length of [...Array(200).keys(), 1000, 4999]) {
    const bytes = all.slice(0, length)
    const [a, b] = draw.integers(2, 0, length + 1).sort((x, y) => x - y)
    const hash = new Sha256().update(bytes.subarray(0, a)).update(bytes.subarray(a, b)).update(bytes.subarray(b))
    assert.is(hash.hex(), await digest(bytes), `${length} bytes, cut at ${a} and ${b}`)
  }
})

test('texts are hashed as UTF-8', async () => {
  const text = 'grün 🎉'
  assert.is(new Sha256().update(text).hex(), await digest(new Uint8Array(new TextEncoder().encode(text))))
})

test.run()
