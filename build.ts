// Bundles dist/: the command, the library for Node and the library for browsers.
import { chmodSync, existsSync } from 'node:fs'
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

// `npx pinball` in the repository runs `prepare` again; what is built already is what it wants to run.
const prepared = process.env.npm_lifecycle_event === 'prepare' && process.env.npm_command === 'exec'
if (prepared && existsSync(join(root, 'dist/pinball.js'))) process.exit(0)

await generate()
await build({ ...node, entryPoints: { pinball: 'src/cli/pinball.ts' }, banner: { js: '#!/usr/bin/env node' } })
await build({ ...node, entryPoints: { node: 'src/node.ts' } })
await build({ ...browser, entryPoints: { index: 'src/index.ts' } })
// npm makes commands executable when it installs a package, not in the repository itself.
chmodSync(join(root, 'dist/pinball.js'), 0o755)
