// The library's examples in README and docs are run and type-checked as they stand, on the built package.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const pages = [
  'README.md',
  ...readdirSync(`${ROOT}/docs`)
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]
const blocks = pages.flatMap((page) =>
  [...readFileSync(`${ROOT}/${page}`, 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!),
)

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

/** Compiles a program in a folder of its own, in which nothing but the package is installed. */
function compile(code: string, ...resolution: string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'pinball-types-'))
  try {
    mkdirSync(join(folder, 'node_modules'))
    symlinkSync(ROOT, join(folder, 'node_modules/pinball-rm'), 'junction')
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
    writeFileSync(join(folder, 'example.ts'), code)
    const options = ['--strict', '--noEmit', '--skipLibCheck', 'false', '--target', 'es2022', ...resolution]
    const args = [join(ROOT, 'node_modules/typescript/bin/tsc'), ...options, 'example.ts']
    return spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' }).stdout
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const NODE = ['--module', 'nodenext']
const BUNDLER = ['--module', 'esnext', '--moduleResolution', 'bundler']

test('the declarations of the package suit strict users, in Node and in a bundle', () => {
  for (const resolution of [NODE, [...BUNDLER, '--customConditions', 'node']]) {
    for (const code of blocks) assert.is(compile(code, ...resolution), '')
    const wrong = `${blocks[0]}\nconst wrong: string = result.expectation\nconsole.log(wrong)`
    assert.match(compile(wrong, ...resolution), /^example\.ts\S+ error TS2322: [^\n]+\n$/)
  }
  // A bundle for browsers has no disk.
  const onDisk = "import { openDirectory } from 'pinball-rm'\nconsole.log(await openDirectory('models/nano'))"
  assert.match(compile(onDisk, ...BUNDLER), /has no exported member 'openDirectory'/)
  assert.is(compile(onDisk, ...NODE), '')
  assert.is(compile("import { openDevice } from 'pinball-rm'\nawait (await openDevice()).destroy()", ...BUNDLER), '')
})

test.run()
