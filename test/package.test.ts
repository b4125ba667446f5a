// The package as its users get it: small where little of it is used, typed without a page, its models and entry points within reach.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import '../build.ts'
import { root } from './command.ts'

const run = promisify(execFile)

/** Bytes of what a bundler makes of a module that uses the package, minified. */
async function sizeOf(contents: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: join(root, 'test') },
    ...{ bundle: true, minify: true, format: 'esm', platform: 'browser', write: false, logLevel: 'error' },
  })
  return outputFiles[0]!.contents.length
}

test('a page pays for what it uses', async () => {
  const limits: [string, number][] = [
    ["export { cvar } from 'pinball-rm'", 15_000],
    ["export { RewardDistribution } from 'pinball-rm'", 20_000],
    ["export { loadRewardModel, openDevice, openUrl } from 'pinball-rm'", 330_000],
    ["export { fitQuantiles } from 'pinball-rm'", 250_000],
  ]
  for (const [code, limit] of limits) {
    const bytes = await sizeOf(code)
    assert.ok(bytes > 1000 && bytes < limit, `${code} has ${bytes} bytes, at most ${limit} are allowed`)
  }
})

test('types for Node need no page, and the functions behind them are there', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pinball-user-'))
  try {
    await mkdir(join(folder, 'node_modules'))
    await symlink(root, join(folder, 'node_modules/pinball-rm'), 'junction')
    await symlink(join(root, 'node_modules/@types'), join(folder, 'node_modules/@types'), 'junction')
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
    await writeFile(
      join(folder, 'a.ts'),
      `import { loadRewardModel, openDevice, openEmbedded } from 'pinball-rm'
const device = await openDevice('wasm', { threads: 1 })
const model = await loadRewardModel(device, await openEmbedded())
const [score] = await model.score([{ prompt: 'How was the film?', response: 'A delight.' }])
const low: number = score!.distribution.quantile(0.1)
console.log(low < score!.distribution.quantile(0.9), score!.tokens)
await model.destroy()
await device.destroy()
`,
    )
    const options = {
      ...{ target: 'es2022', lib: ['es2022'], module: 'nodenext', types: ['node'], strict: true },
      ...{ skipLibCheck: false, noUncheckedIndexedAccess: true },
    }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['a.ts'] }))
    const compiler = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    const compiled = await run(process.execPath, [compiler, '-p', folder]).catch((error) => error)
    assert.is(`${compiled.stdout}${compiled.stderr}`, '')
    const { stdout } = await run(process.execPath, [join(folder, 'a.js')])
    assert.match(stdout, /^true \d+\n$/)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('what package.json names is there, for Node and for pages', async () => {
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  const paths: string[] = []
  const collect = (value: unknown): void => {
    if (typeof value === 'string') paths.push(value)
    else for (const inner of Object.values(value as object)) collect(inner)
  }
  collect([manifest.exports, manifest.main, manifest.types, manifest.bin])
  assert.ok(paths.length > 8)
  for (const path of paths)
    assert.ok(
      existsSync(join(root, path.replace('*', 'config.json').replace('nano-sft/config', 'nano-sft/adapter_config'))),
      path,
    )
  for (const platform of ['node', 'web']) {
    const text = await readFile(join(root, `dist/${platform}/device/choose.js`), 'utf8')
    assert.is(text.includes('dawn.js'), platform === 'node')
  }
})

test.run()
