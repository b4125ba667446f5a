// Writes src/generated: typed kernels from the shader headers, and the AssemblyScript modules and the worker as text.
// Refuses a header that disagrees with its shader or with its AssemblyScript twin. Does nothing when no input changed.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { WgslReflect } from 'wgsl_reflect/wgsl_reflect.module.js'
import { compileAssembly, MODULES } from './assembly.ts'
import { compileExpression, type Header, parseHeader } from './header.ts'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..')
const OUT = join(ROOT, 'src/generated')
const OUTPUTS = ['kernels.ts', 'worker.ts', ...MODULES.map(({ file }) => file)]
/** The sources of the thread worker. */
const WORKER = ['src/device/wasm/worker.ts', 'src/device/wasm/queue.ts']
/** WebGPU guarantees this many storage buffers to a compute stage. */
const MAX_STORAGE_BUFFERS = 8

interface Kernel {
  readonly name: string
  readonly header: Header
  readonly scalarTypes: readonly string[]
  readonly text: string
}

/** Reads one shader and checks header, bindings, Params and twin against each other. */
export function readKernel(file: string, text: string, twin: string): Kernel {
  const name = file.replace(/^.*\//, '').replace(/\.wgsl$/, '')
  const header = parseHeader(file, text)
  const fail = (reason: string): never => {
    throw new Error(`${file}: ${reason}`)
  }
  const reflect = new WgslReflect(text)
  const main = reflect.entry.compute.find((entry) => entry.name === 'main')
  if (!main) fail('the entry point must be called main')
  for (const { group, name: variable } of [...reflect.storage, ...reflect.uniforms])
    if (group !== 0) fail(`${variable}: all bindings belong to group 0, found group ${group}`)
  if (header.tensors.length > MAX_STORAGE_BUFFERS)
    fail(`${header.tensors.length} tensors; WebGPU guarantees ${MAX_STORAGE_BUFFERS} storage buffers`)
  if (reflect.storage.length !== header.tensors.length)
    fail(`the header names ${header.tensors.length} tensors, the shader binds ${reflect.storage.length}`)
  for (const [index, tensor] of header.tensors.entries()) {
    const found = reflect.storage.find((variable) => variable.binding === index)
    if (!found) throw fail(`nothing is bound at ${index}; bindings run from 0 without gaps in header order`)
    if (found.name !== tensor.name) fail(`binding ${index} is ${found.name}, the header says ${tensor.name}`)
    const access = tensor.role === 'input' ? 'read' : 'read_write'
    const declared = found.access === '' ? 'read' : found.access
    if (declared !== access)
      fail(`${tensor.name} is ${tensor.role}, so its access must be ${access}, found ${declared}`)
    const element = tensor.dtype === 'f32' ? 'f32' : 'u32'
    const type = found.type.getTypeName().replace(', 0>', '>')
    if (![`array<${element}>`, `array<vec2${element[0]}>`, `array<vec4${element[0]}>`].includes(type))
      fail(`${tensor.name} is ${tensor.dtype}, so it must be an array of ${element}, found ${type}`)
  }
  const params = reflect.uniforms[0]
  if (reflect.uniforms.length !== 1 || params?.name !== 'params' || params.binding !== header.tensors.length)
    fail(`the last binding (${header.tensors.length}) must be the uniform "params"`)
  const members = reflect.structs.find((struct) => struct.name === 'Params')?.members ?? []
  const wanted = [...header.letters, ...header.scalars]
  if (members.map((member) => member.name).join() !== wanted.join())
    fail(
      `Params must hold ${wanted.join(', ')} (letters, then scalars), found ${members.map((m) => m.name).join(', ')}`,
    )
  const types = members.map((member) => member.type.name)
  for (const [index, type] of types.entries()) {
    const allowed = index < header.letters.length ? ['u32'] : ['u32', 'i32', 'f32']
    if (!allowed.includes(type)) fail(`Params.${wanted[index]} must be ${allowed.join(' or ')}, found ${type}`)
  }
  checkTwin(name, twin, [
    ...header.tensors.map((tensor) => `${tensor.name}: usize`),
    ...wanted.map((member, index) => `${member}: ${types[index]}`),
    'start: u32',
    'end: u32',
  ])
  return { name, header, scalarTypes: types.slice(header.letters.length), text }
}

function checkTwin(name: string, twin: string, wanted: readonly string[]): void {
  const where = `assembly/kernels/${name}.ts`
  const signature = new RegExp(`export function ${name}\\(([^)]*)\\): void`).exec(twin)
  if (!signature) throw new Error(`${where}: must export function ${name}(${wanted.join(', ')}): void`)
  const found = signature[1]!
    .split(',')
    .map((part) => part.trim().replace(/\s+/g, ' '))
    .filter(Boolean)
  if (found.join(', ') !== wanted.join(', '))
    throw new Error(`${where}: the header asks for (${wanted.join(', ')}), found (${found.join(', ')})`)
}

/** The `const` and `override` numbers of a shader, which dispatch expressions may use. */
function constantsOf(text: string): Record<string, number> {
  const constants: Record<string, number> = {}
  for (const match of text.matchAll(/^(?:const|override)\s+([A-Z]\w*)(?:\s*:\s*\w+)?\s*=\s*(\d+)[ui]?\s*;/gm))
    constants[match[1]!] = Number(match[2])
  return constants
}

/** The typed module of all kernels, as text. */
function kernelModule(kernels: readonly Kernel[]): string {
  const entries = kernels.map(({ name, header, scalarTypes, text }) => {
    const constants = constantsOf(text)
    const names = [...header.letters, ...header.scalars]
    const compile = (expression: string) => compileExpression(`shaders/${name}.wgsl`, expression, names, constants)
    const tensors = header.tensors.map(
      (tensor) =>
        `      { name: '${tensor.name}', shape: ${JSON.stringify(tensor.shape)}, dtype: '${tensor.dtype}', role: '${tensor.role}' },`,
    )
    const scalars = header.scalars.map((scalar, index) => `{ name: '${scalar}', type: '${scalarTypes[index]}' }`)
    return `  ${name}: {
    name: '${name}',
    tensors: [
${tensors.join('\n')}
    ],
    letters: ${JSON.stringify(header.letters)},
    scalars: [${scalars.join(', ')}],
    needs: ${JSON.stringify(header.needs)},
    dispatch: ${ofSizes(`[${header.dispatch.map(compile).join(', ')}]`)},
    split: ${ofSizes(compile(header.split.expression))},
    splitBy: ${header.split.by},
    flops: ${ofSizes(compile(header.flops))},
    bytes: ${ofSizes(compile(header.bytes))},
    wgsl: ${JSON.stringify(text)},
  },`
  })
  const tensorTypes = kernels.map(
    ({ name, header }) => `  ${name}: ${union(header.tensors.map((tensor) => tensor.name))}`,
  )
  const scalarTypes = kernels.map(({ name, header }) => `  ${name}: ${union(header.scalars)}`)
  return `// Made by shaders/generate.ts from the shader headers; not to be edited.
import type { KernelSpec } from '../device/kernel.ts'

export interface KernelTensors {
${tensorTypes.join('\n')}
}

export interface KernelScalars {
${scalarTypes.join('\n')}
}

export type KernelName = keyof KernelTensors

export const kernels: Readonly<Record<KernelName, KernelSpec>> = {
${entries.join('\n')}
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
  mkdirSync(OUT, { recursive: true })
  const files = readdirSync(join(ROOT, 'shaders')).filter((file) => file.endsWith('.wgsl'))
  const kernels = files.sort().map((file) => {
    const twin = join(ROOT, 'assembly/kernels', file.replace(/\.wgsl$/, '.ts'))
    if (!existsSync(twin))
      throw new Error(`shaders/${file}: has no twin assembly/kernels/${file.replace(/\.wgsl$/, '.ts')}`)
    return readKernel(`shaders/${file}`, readFileSync(join(ROOT, 'shaders', file), 'utf8'), readFileSync(twin, 'utf8'))
  })
  write('kernels.ts', kernelModule(kernels))
  for (const [file, text] of await compileAssembly(ROOT)) write(file, text)
  write('worker.ts', await workerModule())
  write('stamp', stamp)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await generate()
