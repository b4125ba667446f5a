// PyTorch and PEFT in a process of its own, which makes a step whenever it is asked to. Part of npm run bench -- lora --peft PYTHON.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

export interface PeftStep {
  /** Milliseconds on the clock, and of processor time. */
  readonly ms: number
  readonly cpuMs: number
}

export interface Peft {
  /** Versions, threads and instruction set. */
  readonly description: string
  step(): Promise<PeftStep>
  end(): void
}

export async function startPeft(python: string, args: readonly (string | number)[]): Promise<Peft> {
  const script = new URL('peft_reference.py', import.meta.url).pathname
  const child = spawn(python, [script, ...args.map(String)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done) throw new Error(`${script}: has ended`)
    return value as string
  }
  const description = (await next()).replace('ready: ', '')
  return {
    description,
    async step() {
      child.stdin.write('step\n')
      const [ms, cpuMs] = (await next()).split(' ').map(Number)
      return { ms: ms!, cpuMs: cpuMs! }
    },
    end: () => void child.stdin.end(),
  }
}
