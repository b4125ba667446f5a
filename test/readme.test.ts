// The library's example in the README is run as it stands, on the built package.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const blocks = [...readFileSync(`${ROOT}/README.md`, 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!)

test('the README has an example', () => {
  assert.ok(blocks.length > 0)
})

for (const [i, code] of blocks.entries()) {
  test(`example ${i + 1} runs, prints numbers and ends by itself`, () => {
    const args = ['--input-type=module', '--eval', code]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: ROOT,
      encoding: 'utf8',
      timeout: 120_000,
    })
    assert.is(status, 0, stderr)
    assert.is(stderr, '')
    assert.match(stdout, /-?\d\.\d/)
    assert.not.match(stdout, /NaN|undefined/)
  })
}

test.run()
