// The draw of rows: names and places of texts by their hashes, and where the smallest of them end.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { drawText, repeats, threshold } from '../src/data/draw.ts'

test('draws are even and ids of similar texts differ; thresholds count different draws', () => {
  const count = 20_000
  const found = Array.from({ length: count }, (_, n) => drawText(`text ${n}`, 7))
  assert.is(new Set(found.map(({ id }) => id)).size, count)
  const cells = new Array<number>(16).fill(0)
  for (const { draw } of found) cells[Math.floor((draw / 2 ** 53) * 16)]++
  // A count is binomial; six standard deviations of sqrt(count / 16 * 15 / 16).
  for (const cell of cells) assert.ok(Math.abs(cell - count / 16) < 6 * Math.sqrt((count / 16) * (15 / 16)), `${cells}`)
  assert.is(drawText('a', 1).id, drawText('a', 2).id)
  assert.is.not(drawText('a', 1).draw, drawText('a', 2).draw)
  assert.equal([threshold([3, 1, 1, 2], 2), threshold([3, 1, 1, 2], 3), threshold([], 1)], [2, Infinity, Infinity])
  assert.equal([...repeats([3, 1, 1, 2, 1])], [[1, 3]])
})

test.run()
