// Compiles the AssemblyScript modules named in asconfig.json and wraps each as a TypeScript module with a function that gives its bytes:
// compressed, but for the one that is needed at once.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'

/** Target of asconfig.json, its entry file, and where its bytes go. */
export const MODULES = [
  { target: 'threads', entry: 'assembly/index.ts', file: 'kernels_threads.ts', name: 'kernelsThreadsWasm' },
  { target: 'single', entry: 'assembly/index.ts', file: 'kernels_single.ts', name: 'kernelsSingleWasm' },
  { target: 'solver_threads', entry: 'assembly/solver/index.ts', file: 'solver_threads.ts', name: 'solverThreadsWasm' },
  { target: 'solver_single', entry: 'assembly/solver/index.ts', file: 'solver_single.ts', name: 'solverSingleWasm' },
  { target: 'quantile', entry: 'assembly/quantile/index.ts', file: 'quantile.ts', name: 'quantileWasm', plain: true },
] as const

/** Compiles all modules; gives pairs of generated file name and text. Throws with the compiler's messages. */
export async function compileAssembly(root: string): Promise<[string, string][]> {
  // The compiler takes seconds to load, and most builds do not need it.
  const { default: asc } = await import('assemblyscript/asc')
  const folder = mkdtempSync(join(tmpdir(), 'pinball-asc-'))
  try {
    const files: [string, string][] = []
    for (const { target, entry, file, name, ...module } of MODULES) {
      const out = join(folder, `${target}.wasm`)
      const args = [entry, '--config', 'asconfig.json', '--target', target, '--baseDir', root, '--outFile', out]
      const { error, stderr } = await asc.main(args)
      if (error) throw new Error(`${entry} (${target}): ${error.message} ${stderr.toString()}`)
      const bytes = readFileSync(out)
      const text = 'plain' in module ? plainModule(name, bytes) : packedModule(name, bytes)
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

/** A module with a function that gives bytes in the end. */
export const packedModule = (name: string, bytes: Uint8Array): string =>
  `import { unpack } from '../device/unpack.ts'
export const ${name} = () =>
  unpack('${deflateRawSync(bytes, { level: 9 }).toString('base64')}')
`
