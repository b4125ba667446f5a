// Compiles the AssemblyScript modules named in asconfig.json and wraps each as a TypeScript module with a function that gives its bytes:
// compressed, but for the one that is needed at once. A module serves one thread and many.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'

/** Target of asconfig.json, its entry file, and where its bytes go. Modules on a memory that threads may share are packed. */
export const MODULES = [
  { target: 'kernels', entry: 'assembly/index.ts', file: 'kernels_wasm.ts', name: 'kernelsWasm', packed: true },
  { target: 'solver', entry: 'assembly/solver/index.ts', file: 'solver_wasm.ts', name: 'solverWasm', packed: true },
  { target: 'quantile', entry: 'assembly/quantile/index.ts', file: 'quantile.ts', name: 'quantileWasm', packed: false },
] as const

/** Compiles all modules; gives pairs of generated file name and text. Throws with the compiler's messages. */
export async function compileAssembly(root: string): Promise<[string, string][]> {
  // The compiler takes seconds to load, and most builds do not need it.
  const { default: asc } = await import('assemblyscript/asc')
  const folder = mkdtempSync(join(tmpdir(), 'pinball-asc-'))
  try {
    const files: [string, string][] = []
    for (const { target, entry, file, name, packed } of MODULES) {
      const out = join(folder, `${target}.wasm`)
      const args = [entry, '--config', 'asconfig.json', '--target', target, '--baseDir', root, '--outFile', out]
      const { error, stderr } = await asc.main(args)
      if (error) throw new Error(`${entry} (${target}): ${error.message} ${stderr.toString()}`)
      const bytes = readFileSync(out)
      const text = packed ? memoryModule(name, bytes) : plainModule(name, bytes)
      files.push([file, `// Made by shaders/generate.ts from ${entry}; not to be edited.\n${text}`])
    }
    return files
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A module with a function that gives bytes. */
const plainModule = (name: string, bytes: Uint8Array): string =>
  `export const ${name} = () =>
  Uint8Array.from(atob('${Buffer.from(bytes).toString('base64')}'), (character) => character.charCodeAt(0))
`

// What the import of a memory looks like up to its flags: 3 is shared with a maximum, 1 is not shared.
const MEMORY = Buffer.from('\u0003env\u0006memory\u0002', 'latin1')

/** A module with a function that gives the bytes for a memory that is shared, or for one that is not: they differ in one byte. */
function memoryModule(name: string, bytes: Buffer): string {
  const at = bytes.indexOf(MEMORY) + MEMORY.length
  if (at < MEMORY.length || bytes.indexOf(MEMORY, at) >= 0 || bytes[at] !== 3)
    throw new Error(`${name}: must import one shared memory with a maximum`)
  return `${packedModule('packed', bytes)}
export async function ${name}(shared: boolean): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await packed()
  if (!shared) bytes[${at}] = 1
  return bytes
}
`
}

/** A module with a function that gives bytes in the end. */
export const packedModule = (name: string, bytes: Uint8Array): string =>
  `import { unpack } from '../device/unpack.ts'
export const ${name} = () =>
  unpack('${deflateRawSync(bytes, { level: 9 }).toString('base64')}')
`
