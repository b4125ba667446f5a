// Makes dist/: the command, the library for Node, the library for browsers, and their declarations for TypeScript.
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build } from 'esbuild'
import { generate } from './shaders/generate.ts'

const root = dirname(fileURLToPath(import.meta.url))

const shared: BuildOptions = {
  absWorkingDir: root,
  outdir: 'dist',
  bundle: true,
  format: 'esm',
  // The packages of package.json stay imports; only our own code is bundled.
  packages: 'external',
  legalComments: 'none',
  logLevel: 'warning',
}
const node: BuildOptions = { ...shared, platform: 'node', target: 'node20', conditions: ['node'] }
const browser: BuildOptions = { ...shared, platform: 'browser', target: 'es2022', conditions: ['browser'] }

/** Writes the declarations of src/node.ts and src/index.ts; "npm run types" is what checks them. */
function declare(folder: string): void {
  rmSync(folder, { recursive: true, force: true })
  const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'))
  execFileSync(process.execPath, [join(typescript, 'bin/tsc'), '-p', join(root, 'tsconfig.types.json')])
  // The compiler leaves './x.ts' in declarations, where every user's compiler expects './x.js'.
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.d.ts')) continue
    const text = readFileSync(join(folder, file), 'utf8')
    writeFileSync(join(folder, file), text.replace(/(from |import\()(['"])(\.[^'"\n]*)\.ts\2/g, '$1$2$3.js$2'))
  }
}

await generate()
await build({ ...node, entryPoints: { pinball: 'src/cli/pinball.ts' }, banner: { js: '#!/usr/bin/env node' } })
await build({ ...node, entryPoints: { node: 'src/node.ts' } })
await build({ ...browser, entryPoints: { index: 'src/index.ts' } })
declare(join(root, 'dist/types'))
// npm makes commands executable when it installs a package, not in the repository itself.
chmodSync(join(root, 'dist/pinball.js'), 0o755)

// npm links a package's command into the projects that install it, not into its own repository, where `npx pinball` would
// copy and build everything once more.
if (process.platform !== 'win32') {
  const link = join(root, 'node_modules/.bin/pinball')
  mkdirSync(dirname(link), { recursive: true })
  rmSync(link, { force: true })
  symlinkSync('../../dist/pinball.js', link)
}
