// Compiles the AssemblyScript modules named in asconfig.json and wraps each as a TypeScript module with a function that gives its bytes.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import asc from 'assemblyscript/asc'

/** Target of asconfig.json, its entry file, and where its bytes go. */
export const MODULES = [
  { target: 'threads', entry: 'assembly/index.ts', file: 'kernels_threads.ts', name: 'kernelsThreadsWasm' },
  { target: 'single', entry: 'assembly/index.ts', file: 'kernels_single.ts', name: 'kernelsSingleWasm' },
  { target: 'solver_threads', entry: 'assembly/solver/index.ts', file: 'solver_threads.ts', name: 'solverThreadsWasm' },
  { target: 'solver_single', entry: 'assembly/solver/index.ts', file: 'solver_single.ts', name: 'solverSingleWasm' },
  { target: 'quantile', entry: 'assembly/quantile/index.ts', file: 'quantile.ts', name: 'quantileWasm' },
] as const

/** Compiles all modules; gives pairs of generated file name and text. Throws with the compiler's messages. */
export async function compileAssembly(root: string): Promise<[string, string][]> {
  const folder = mkdtempSync(join(tmpdir(), 'pinball-asc-'))
  try {
    const files: [string, string][] = []
    for (const { target, entry, file, name } of MODULES) {
      const out = join(folder, `${target}.wasm`)
      const args = [entry, '--config', 'asconfig.json', '--target', target, '--baseDir', root, '--outFile', out]
      const { error, stderr } = await asc.main(args)
      if (error) throw new Error(`${entry} (${target}): ${error.message} ${stderr.toString()}`)
      const bytes = readFileSync(out).toString('base64')
      files.push([
        file,
        `// Made by shaders/generate.ts from ${entry}; not to be edited.\nexport const ${name} = () =>\n  Uint8Array.from(atob('${bytes}'), (character) => character.charCodeAt(0))\n`,
      ])
    }
    return files
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
