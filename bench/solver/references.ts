// Runs scikit-learn and R's quantreg, where they are installed, on the very data of the benchmark.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Reference = 'scikit-learn' | 'quantreg'

export interface ReferenceFit {
  /** The smaller of wall and processor time, median of the runs. */
  readonly ms: number
  readonly runs: number
  /** The benchmark's objective at their weights. */
  readonly objective: number
  readonly nonzeros: number
  readonly software: string
  readonly blas: string
}

/** Gives the program that runs a reference, null where it is not there. */
export type FindProgram = (who: Reference) => string | null

export interface ReferenceProblem {
  /** f32 [rows, columns]. */
  readonly x: Float32Array
  readonly y: Float32Array
  readonly rows: number
  readonly columns: number
  readonly level: number
  readonly alpha: number
}

const SCRIPTS: Record<Reference, string> = { 'scikit-learn': 'sklearn_reference.py', quantreg: 'rq_reference.R' }
const PROBES: Record<Reference, readonly string[]> = {
  'scikit-learn': ['-c', 'import sklearn'],
  quantreg: ['-e', 'library(quantreg)'],
}
const USUAL: Record<Reference, string> = { 'scikit-learn': 'python3', quantreg: 'Rscript' }
const OPTION: Record<Reference, string> = { 'scikit-learn': '--python', quantreg: '--rscript' }

/** One thread for the linear algebra of both, as their solvers have no threads of their own. */
const ENVIRONMENT = { OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1', MKL_NUM_THREADS: '1' }

/**
 * Finds the interpreter of a reference, the one given or the usual one, each once. Throws where a given one does not work; says on
 * stderr where there is none.
 */
export function programFinder(given: { readonly python?: string; readonly rscript?: string }): FindProgram {
  const paths: Record<Reference, string | undefined> = { 'scikit-learn': given.python, quantreg: given.rscript }
  const found = new Map<Reference, string | null>()
  const find = (who: Reference): string | null => {
    const program = paths[who] ?? USUAL[who]
    const { status, stderr } = spawnSync(program, PROBES[who], { encoding: 'utf8' })
    if (status === 0) return program
    if (paths[who]) throw new Error(`bench: ${program} cannot load ${who}: ${stderr?.trim().split('\n').at(-1) ?? ''}`)
    console.error(`not here: ${who}; give its interpreter by ${OPTION[who]} PATH`)
    return null
  }
  return (who) => {
    if (!found.has(who)) found.set(who, find(who))
    return found.get(who)!
  }
}

/** Times a reference; null where it is not installed or takes longer than `limitMs`, which is said on stderr. */
export function runReference(
  who: Reference,
  findProgram: FindProgram,
  problem: ReferenceProblem,
  limitMs: number,
): ReferenceFit | null {
  const program = findProgram(who)
  if (!program) return null
  const folder = mkdtempSync(join(tmpdir(), 'pinball-bench-'))
  try {
    const prefix = join(folder, 'problem')
    for (const [name, { buffer, byteOffset, byteLength }] of Object.entries({ x: problem.x, y: problem.y }))
      writeFileSync(`${prefix}.${name}.f32`, new Uint8Array(buffer, byteOffset, byteLength))
    const script = fileURLToPath(new URL(SCRIPTS[who], import.meta.url))
    const sizes = [problem.rows, problem.columns, problem.level, problem.alpha].map(String)
    const { status, error, stdout, stderr } = spawnSync(program, [script, prefix, ...sizes], {
      encoding: 'utf8',
      env: { ...process.env, ...ENVIRONMENT },
      timeout: limitMs,
    })
    if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT') {
      console.error(`${who}, ${problem.rows} x ${problem.columns}: stopped after ${limitMs / 1000} s`)
      return null
    }
    if (status !== 0) throw new Error(`bench: ${script} failed: ${stderr.trim().split('\n').at(-1)}`)
    return JSON.parse(stdout.trim().split('\n').at(-1)!) as ReferenceFit
  } finally {
    rmSync(folder, { recursive: true })
  }
}
