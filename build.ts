// Bundles dist/: the command, the library for Node and the library for browsers.
import { chmodSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
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

await generate()
await build({ ...node, entryPoints: { pinball: 'src/cli/pinball.ts' }, banner: { js: '#!/usr/bin/env node' } })
await build({ ...node, entryPoints: { node: 'src/node.ts' } })
await build({ ...browser, entryPoints: { index: 'src/index.ts' } })
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
