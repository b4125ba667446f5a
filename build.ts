// Makes dist/: the command, the library for Node and for browsers as modules, in one file for pages, and its declarations for
// TypeScript. Does nothing when no input changed.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type BuildOptions, build, type Plugin } from 'esbuild'
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
/** Where a module of src/ is in a folder of modules. */
const moduleName = (path: string) => relative(join(root, 'src'), path).replaceAll('\\', '/').replace(/\.ts$/, '')

/** Keeps every module of src/ a file of its own, so that a bundler of a user leaves out what is not used; gives the modules it saw. */
function apart(seen: Set<string>): Plugin {
  return {
    name: 'apart',
    setup({ onResolve, resolve }) {
      onResolve({ filter: /^[.#]/ }, async ({ path, importer, kind, resolveDir, pluginData }) => {
        if (kind === 'entry-point' || pluginData === 'resolved' || path.endsWith('.json')) return null
        const found = await resolve(path, { kind, importer, resolveDir, pluginData: 'resolved' })
        if (found.errors.length > 0) return found
        seen.add(found.path)
        const name = relative(dirname(moduleName(importer)), moduleName(found.path)).replaceAll('\\', '/')
        return { path: `${name.startsWith('.') ? name : `./${name}`}.js`, external: true }
      })
    },
  }
}

/** Writes every module that `entry` needs into `folder`. */
async function buildModules(options: BuildOptions, entry: string, folder: string): Promise<void> {
  rmSync(join(root, folder), { recursive: true, force: true })
  const done = new Set<string>()
  let next = [join(root, entry)]
  while (next.length > 0) {
    const seen = new Set<string>()
    const entryPoints = Object.fromEntries(next.map((path) => [moduleName(path), path]))
    await build({ ...options, entryPoints, outdir: folder, plugins: [apart(seen)] })
    for (const path of next) done.add(path)
    next = [...seen].filter((path) => !done.has(path))
  }
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

/** A digest of everything that dist/ is made from. */
function digest(): string {
  const hash = createHash('sha256')
  const files = readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  const others = ['build.ts', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.types.json']
  for (const path of [...files.sort(), ...others.map((name) => join(root, name))])
    hash.update(relative(root, path)).update('\0').update(readFileSync(path))
  return hash.digest('hex')
}

async function buildAll(): Promise<void> {
  await build({ ...node, entryPoints: { pinball: 'src/cli/pinball.ts' }, banner: { js: '#!/usr/bin/env node' } })
  await buildModules(node, 'src/node.ts', 'dist/node')
  await buildModules(browser, 'src/index.ts', 'dist/web')
  // For pages without a bundler: one file.
  await build({ ...browser, entryPoints: { 'pinball.bundle': 'src/index.ts' }, packages: 'bundle', minify: true })
  // For pages that start no worker from a text.
  const { workerText } = await import('./src/generated/worker.ts')
  writeFileSync(join(root, 'dist/pinball.worker.js'), workerText)
  declare(join(root, 'dist/types'))
  // npm makes commands executable when it installs a package, not in the repository itself.
  chmodSync(join(root, 'dist/pinball.js'), 0o755)
}

await generate()
const [stamp, stampFile] = [digest(), join(root, 'dist/stamp')]
if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  await buildAll()
  writeFileSync(stampFile, stamp)
}

// npm links a package's command into the projects that install it, not into its own repository, where `npx pinball` would
// copy and build everything once more.
if (process.platform !== 'win32') {
  const link = join(root, 'node_modules/.bin/pinball')
  mkdirSync(dirname(link), { recursive: true })
  rmSync(link, { force: true })
  symlinkSync('../../dist/pinball.js', link)
}
