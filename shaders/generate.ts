// Writes src/generated: every kernel's whole shader, typed kernels from the headers, the AssemblyScript modules and the worker as
// text; and assembly/generated, the exports of the twins. Refuses a header that disagrees with its shader or with its
// AssemblyScript twin. Does nothing when no input changed.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { compileAssembly, MODULES, packedModule } from './assembly.ts'
import { compileExpression, type Header } from './header.ts'
import { type Kernel, makeKernels, type Parts } from './variants.ts'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const OUT = join(ROOT, 'src/generated')
const TWINS = 'assembly/generated'
const OUTPUTS = [
  'kernels.ts',
  'shader_texts.ts',
  'worker.ts',
  'shaders',
  ...MODULES.map(({ file }) => file),
  `../../${TWINS}/kernels.ts`,
]
/** The sources of the thread worker. */
const WORKER = ['src/device/wasm/worker.ts', 'src/device/wasm/queue.ts']
/** Reads one shader and its AssemblyScript twin; throws where they disagree. */
export function readKernels(file: string, text: string, twin: string, parts: Parts = readPart): Kernel[] {
  const kernels = makeKernels(file, text, parts)
  checkTwin(kernels[0]!, twin)
  return kernels
}

function readPart(name: string): string | null {
  const path = join(ROOT, `shaders/parts/${name}.wgsl`)
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}

/** What stands behind the tensors in the arguments of a twin. */
const tailOf = ({ letters, scalars }: Header): string[] => [
  ...letters.map((letter) => `${letter}: u32`),
  ...scalars.map(({ name, type }) => `${name}: ${type}`),
  'start: u32',
  'end: u32',
]

/**
 * A twin takes the addresses of the tensors, of a stored one always two: its values and its scales, 0 where it has none. It
 * may take sizes as usize, which is as wide as u32.
 */
function checkTwin({ algorithm, header, stored }: Kernel, twin: string): void {
  const where = `assembly/kernels/${algorithm}.ts`
  const tensors = header.tensors.flatMap(({ name }) =>
    name === stored?.tensor ? [`${name}: usize`, `${name}_scale: usize`] : [`${name}: usize`],
  )
  const wanted = [...tensors, ...tailOf(header)].join(', ')
  const name = stored ? `${algorithm}<T>` : algorithm
  const signature = new RegExp(`export function ${name}\\(([^)]*)\\): void`).exec(twin)
  if (!signature) throw new Error(`${where}: must export function ${name}(${wanted}): void`)
  const found = signature[1]!
    .split(',')
    .map((part) => part.trim().replace(/\s+/g, ' '))
    .filter(Boolean)
    .map((part) => part.replace(/^([A-Z]|start|end): usize$/, '$1: u32'))
    .join(', ')
  if (found !== wanted) throw new Error(`${where}: the header asks for (${wanted}), found (${found})`)
}

/** What the AssemblyScript module exports: every twin, one of a stored kernel once for each storage type. */
function twinsModule(kernels: readonly Kernel[]): string {
  const storages = new Set(
    kernels.flatMap(({ stored }) => (stored && stored.storage !== 'f32' ? [stored.storage] : [])),
  )
  const lines = [
    '// Made by shaders/generate.ts from the shader headers; not to be edited.',
    `import { ${[...storages].join(', ')} } from '../widen'`,
  ]
  for (const { name, algorithm, stored, header, tensors } of kernels) {
    if (!stored) {
      lines.push(`export { ${name} } from '../kernels/${algorithm}'`)
      continue
    }
    const own = tensors.map((tensor) => tensor.name)
    const scale = `${stored.tensor}_scale`
    const given = header.tensors.flatMap((tensor) =>
      tensor.name === stored.tensor ? [tensor.name, own.includes(scale) ? scale : '0'] : [tensor.name],
    )
    const tail = tailOf(header)
    const values = [...given, ...tail.map((argument) => argument.split(':')[0]!)]
    lines.push(
      `import { ${algorithm} as ${name}_of } from '../kernels/${algorithm}'`,
      `export function ${name}(${[...own.map((tensor) => `${tensor}: usize`), ...tail].join(', ')}): void {`,
      `  ${name}_of<${stored.storage}>(${values.join(', ')})`,
      '}',
    )
  }
  return `${lines.join('\n')}\n`
}

/** The typed module of all kernels, as text. */
function kernelModule(kernels: readonly Kernel[]): string {
  const entries = kernels.map(({ name, algorithm, stored, header, tensors, constants, threads }) => {
    const names = [...header.letters, ...header.scalars.map((scalar) => scalar.name)]
    const compile = (expression: string) => compileExpression(`shaders/${algorithm}.wgsl`, expression, names, constants)
    const lines = tensors.map(
      ({ name, shape, dtype, role }) =>
        `      { name: '${name}', shape: ${JSON.stringify(shape)}, dtype: '${dtype}', role: '${role}' },`,
    )
    const scalars = header.scalars.map((scalar) => `{ name: '${scalar.name}', type: '${scalar.type}' }`)
    return `  ${name}: {
    name: '${name}',
    algorithm: '${algorithm}',
    stored: ${JSON.stringify(stored)},
    tensors: [
${lines.join('\n')}
    ],
    letters: ${JSON.stringify(header.letters)},
    scalars: [${scalars.join(', ')}],
    needs: ${JSON.stringify(header.needs)},
    dispatch: ${ofSizes(`[${header.dispatch.map(compile).join(', ')}]`)},
    threads: ${threads},
    split: ${ofSizes(compile(header.split.expression))},
    splitBy: ${header.split.by},
    flops: ${ofSizes(compile(header.flops))},
    bytes: ${ofSizes(compile(header.bytes))},
  },`
  })
  const tensorTypes = kernels.map(({ name, tensors }) => `  ${name}: ${union(tensors.map((tensor) => tensor.name))}`)
  const scalarTypes = kernels.map(
    ({ name, header }) => `  ${name}: ${union(header.scalars.map((scalar) => scalar.name))}`,
  )
  const stored = kernels.filter((kernel) => kernel.stored)
  const storedKernels = [...new Set(stored.map(({ algorithm }) => algorithm))].map((algorithm) => {
    const own = stored.filter((kernel) => kernel.algorithm === algorithm)
    return `  ${algorithm}: { ${own.map((kernel) => `${kernel.stored!.storage}: '${kernel.name}'`).join(', ')} },`
  })
  return `// Made by shaders/generate.ts from the shader headers; not to be edited.
import type { KernelSpec } from '../device/kernel.ts'

export interface KernelTensors {
${tensorTypes.join('\n')}
}

export interface KernelScalars {
${scalarTypes.join('\n')}
}

export type KernelName = keyof KernelTensors

/** Names of the shaders: each is one kernel, or one for each type in which it takes its stored tensor. */
export type Algorithm = ${union([...new Set(kernels.map(({ algorithm }) => algorithm))])}

/** How a matrix may be stored. */
export type Storage = ${union([...new Set(stored.map((kernel) => kernel.stored!.storage))])}

interface Kernel extends KernelSpec {
  readonly algorithm: Algorithm
  /** Which tensor is stored how, for a kernel that has a choice. */
  readonly stored: { readonly tensor: string; readonly storage: Storage } | null
}

/** The kernels of each shader that has a stored tensor. */
export const storedKernels = {
${storedKernels.join('\n')}
} as const

export const kernels: Readonly<Record<KernelName, Kernel>> = {
${entries.join('\n')}
}
`
}

/** The texts of all shaders, by name: compressed, since they repeat their parts and only a GPU needs them. */
function shaderModule(kernels: readonly Kernel[]): string {
  const texts = JSON.stringify(Object.fromEntries(kernels.map(({ name, text }) => [name, text])))
  return `// Made by shaders/generate.ts from the shaders; not to be edited.
import type { KernelName } from './kernels.ts'
${packedModule('packedTexts', new TextEncoder().encode(texts))}
/** The whole WGSL of every kernel. */
export async function shaderTexts(): Promise<Readonly<Record<KernelName, string>>> {
  return JSON.parse(new TextDecoder().decode(await packedTexts()))
}
`
}

/** A function of the sizes, without a parameter where none is used. */
const ofSizes = (body: string): string => `(${/\bs\./.test(body) ? 's' : ''}) => ${body}`

const union = (names: readonly string[]): string =>
  names.length === 0 ? 'never' : names.map((name) => `'${name}'`).join(' | ')

/** Text of the thread worker, bundled so that it can be started without a file. */
async function workerModule(): Promise<string> {
  const result = await build({
    entryPoints: [join(ROOT, WORKER[0]!)],
    metafile: true,
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    target: 'es2022',
  })
  const inputs = Object.keys(result.metafile.inputs).map((path) => relative(ROOT, resolve(path)).replaceAll('\\', '/'))
  if (inputs.sort().join() !== [...WORKER].sort().join())
    throw new Error(`shaders/generate.ts: the worker is made from ${inputs.join(', ')}; put them into WORKER`)
  return `// Made by shaders/generate.ts from src/device/wasm/worker.ts; not to be edited.
export const workerText = ${JSON.stringify(result.outputFiles[0]!.text)}
`
}

function write(file: string, text: string): void {
  const path = join(OUT, file)
  writeFileSync(`${path}.tmp`, text)
  renameSync(`${path}.tmp`, path)
}

/** A digest of everything that src/generated is made from. */
function digest(): string {
  const hash = createHash('sha256')
  const add = (folder: string): void => {
    for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const path = `${folder}/${entry.name}`
      if (path === TWINS) continue
      if (entry.isDirectory()) add(path)
      else
        hash
          .update(path)
          .update('\0')
          .update(readFileSync(join(ROOT, path)))
    }
  }
  add('shaders')
  add('assembly')
  for (const file of ['asconfig.json', ...WORKER, 'package-lock.json']) hash.update(readFileSync(join(ROOT, file)))
  return hash.digest('hex')
}

export async function generate(): Promise<void> {
  const stamp = digest()
  const stampFile = join(OUT, 'stamp')
  const complete = OUTPUTS.every((file) => existsSync(join(OUT, file)))
  if (complete && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return
  for (const folder of ['', 'shaders', `../../${TWINS}`]) mkdirSync(join(OUT, folder), { recursive: true })
  const files = readdirSync(join(ROOT, 'shaders')).filter((file) => file.endsWith('.wgsl'))
  const kernels = files.sort().flatMap((file) => {
    const twin = join(ROOT, 'assembly/kernels', file.replace(/\.wgsl$/, '.ts'))
    if (!existsSync(twin))
      throw new Error(`shaders/${file}: has no twin assembly/kernels/${file.replace(/\.wgsl$/, '.ts')}`)
    return readKernels(`shaders/${file}`, readFileSync(join(ROOT, 'shaders', file), 'utf8'), readFileSync(twin, 'utf8'))
  })
  for (const { name, text } of kernels) write(`shaders/${name}.wgsl`, text)
  for (const file of readdirSync(join(OUT, 'shaders')))
    if (!kernels.some(({ name }) => `${name}.wgsl` === file)) rmSync(join(OUT, 'shaders', file))
  write('kernels.ts', kernelModule(kernels))
  write('shader_texts.ts', shaderModule(kernels))
  write(`../../${TWINS}/kernels.ts`, twinsModule(kernels))
  for (const [file, text] of await compileAssembly(ROOT)) write(file, text)
  write('worker.ts', await workerModule())
  write('stamp', stamp)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await generate()
