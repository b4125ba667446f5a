// npm run bench -- solver: times the quantile solver on states like those of a language model, each fit after its certificate
// held, beside scikit-learn and R where they are installed. Every part is a process of its own, so that its peak memory is its own.
import { spawn } from 'node:child_process'
import { appendFileSync, mkdirSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { table } from './measure.ts'
import { lasso, plot, references, small } from './solver/compare.ts'
import type { PartOptions, PartResult } from './solver/parts.ts'
import { real } from './solver/real.ts'
import { programFinder } from './solver/references.ts'
import { attributes, gram, scale, states } from './solver/scale.ts'

const PARTS = { small, lasso, gram, scale, attributes, real, plot, references, states }
type Part = keyof typeof PARTS

const HELP = `usage: npm run bench -- solver [--part PART[,PART]] [options]

  --part PART       small       10,000 x 128: one level against scikit-learn, 19 levels against one
                    lasso       20,000 x 512: one level against R's rq.fit.lasso
                    gram        20,000 x 2,048: speed of the Gram panels, time by phase
                    scale       60,000 x 4,096 in bf16, 19 levels: time, peak memory (0.5 GB of disk, 2 GB of memory)
                    attributes  the paper's 19 attributes at its sizes: minutes
                    real        ratings of VADER on features of the embedded model, and of --models
                    plot        our points of docs/solver.svg; npm run bench -- plot draws it
                    references  the others' points, kept in bench/results: many minutes
                    states      makes and describes the states that scale and attributes take
                    default: small,lasso,gram,scale
  --threads N       threads of the solver; default: all cores
  --device KIND     where the large products of scale and gram run: wasm (default), webgpu, ...
  --rows N, --columns N, --levels N
                    other sizes than the part's own, for a quick look; N of the 19 levels
  --attributes N    of the part attributes, 7 to 19; the rest is estimated from these; default 19
  --check-all       independent certificates for all levels of scale, not for the middle one only
  --models DIR,...  model directories for the part real
  --python PATH     a Python with scikit-learn; default: python3
  --rscript PATH    an Rscript with quantreg; default: Rscript
  --limit S         longest time for one fit by scikit-learn or R; default 600
  --save NAME       append a line per part to bench/results/NAME.jsonl`

const OPTIONS = {
  part: { type: 'string', default: 'small,lasso,gram,scale' },
  threads: { type: 'string' },
  device: { type: 'string', default: 'wasm' },
  rows: { type: 'string' },
  columns: { type: 'string' },
  levels: { type: 'string' },
  attributes: { type: 'string', default: '19' },
  'check-all': { type: 'boolean', default: false },
  models: { type: 'string', default: '' },
  python: { type: 'string' },
  rscript: { type: 'string' },
  limit: { type: 'string', default: '600' },
  save: { type: 'string' },
  help: { type: 'boolean' },
} as const

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: OPTIONS })
  if (values.help) {
    console.log(HELP)
    return
  }
  const parts = values.part.split(',')
  for (const part of parts)
    if (!Object.hasOwn(PARTS, part))
      throw new Error(`bench: there is no part ${part}; the parts are ${Object.keys(PARTS).join(', ')}`)
  if (parts.length > 1) {
    const results: Record<string, unknown> = {}
    for (const part of parts) results[part] = await runAlone(part, args)
    console.log(JSON.stringify(results))
    return
  }
  const whole = (name: 'threads' | 'rows' | 'columns' | 'levels' | 'attributes' | 'limit'): number | undefined => {
    const text = values[name]
    if (text === undefined) return undefined
    if (!/^[1-9]\d*$/.test(text)) throw new Error(`bench: --${name} must be a whole number above 0, got ${text}`)
    return Number(text)
  }
  const options: PartOptions = {
    threads: whole('threads'),
    device: values.device as PartOptions['device'],
    rows: whole('rows'),
    columns: whole('columns'),
    levels: whole('levels'),
    attributes: whole('attributes')!,
    checkAll: values['check-all'],
    limitMs: 1000 * whole('limit')!,
    findProgram: programFinder(values),
    models: values.models.split(',').filter(Boolean),
  }
  const [part] = parts as [Part]
  const load = loadavg()[0]
  const begin = performance.now()
  const result = await PARTS[part](options)
  print(part, result, load, performance.now() - begin, values.save)
}

/** `load`: average number of running processes in the minute before. */
function print(
  part: Part,
  { title, head, lines, notes, record }: PartResult,
  load: number,
  ms: number,
  save?: string,
): void {
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.versions.node}`
  console.log(`${part}: ${title}; ${machine}`)
  console.log(table(head, lines))
  for (const note of notes) console.log(note)
  console.log(`part ${part}: ${(ms / 1000).toFixed(0)} s in all, load of the machine before ${load.toFixed(1)}\n`)
  const line = JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine, load, part, ...record })
  if (save) {
    mkdirSync('bench/results', { recursive: true })
    appendFileSync(`bench/results/${save}.jsonl`, `${line}\n`)
  }
  console.log(line)
}

/** One part in its own process: its output is shown, but for the last line, which is its result. */
async function runAlone(part: string, args: readonly string[]): Promise<unknown> {
  const run = fileURLToPath(new URL('run.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', run, 'solver', ...args, '--part', part], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let last = ''
  let rest = ''
  child.stdout.setEncoding('utf8')
  child.stdout.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) {
      if (last) console.log(last)
      last = line
    }
  })
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`bench: part ${part} failed, see above`)
  return JSON.parse(last)
}
