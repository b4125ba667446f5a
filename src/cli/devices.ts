// pinball devices: what can compute here, with its limits and features.

import type { Command } from 'commander'
import { explainMissing, requestAdapter } from '#gpu'
import { cores, threadsSupported } from '#threads'
import { openDevice } from '../device/open.ts'
import { print, printJson } from './output.ts'

interface Listing {
  /** What --device takes. */
  readonly device: 'wasm' | 'webgpu' | 'webgpu:software'
  readonly available: boolean
  /** Name of the adapter, or why there is none. */
  readonly description: string
  readonly features: string[]
  readonly limits: Record<string, number>
}

const EXAMPLES = `
Examples:
  $ pinball devices
  $ pinball devices --json
`

/** Adds the command to the program. */
export function addDevices(program: Command): void {
  program
    .command('devices')
    .description('list the devices that are there, with their limits and features')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action(async ({ json }: { json?: boolean }) => {
      const listings = [await adapter('webgpu'), await adapter('webgpu:software'), wasm()]
      // Opened as every command does: a GPU that is there may still fail.
      const opened = await openDevice('auto')
      const { name: auto, choice } = opened
      await opened.destroy()
      if (json) return printJson({ auto, choice, devices: listings })
      const lines = listings.map((listing) => describe(listing, listing.device === auto))
      await print(`${lines.join('\n')}\nauto takes ${choice}\n`)
    })
}

function wasm(): Listing {
  const threads = threadsSupported() ? cores() : 1
  return {
    device: 'wasm',
    available: true,
    description: `WebAssembly SIMD on the CPU, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
    features: ['simd128', ...(threadsSupported() ? ['shared memory'] : [])],
    limits: { threads },
  }
}

async function adapter(device: 'webgpu' | 'webgpu:software'): Promise<Listing> {
  const kind = device === 'webgpu' ? 'hardware' : 'software'
  const missing = (description: string) => ({ device, available: false, description, features: [], limits: {} })
  try {
    const found = await requestAdapter(kind)
    if (found === null) return missing(await explainMissing(kind))
    const { description, features, limits } = found
    found.release()
    return { device, available: true, description, features, limits }
  } catch (error) {
    return missing((error as Error).message)
  }
}

// The limits that computing meets; --json has all.
const OF_INTEREST = /threads|Compute|BufferSize|BufferBindingSize|StorageBuffersPerShaderStage|BindGroups$/

function describe({ device, available, description, features, limits }: Listing, auto: boolean): string {
  const head = `${device}${auto ? ' (auto)' : ''}: ${available ? description : `not available: ${description}`}\n`
  if (!available) return head
  const shown = Object.entries(limits).filter(([name]) => OF_INTEREST.test(name))
  const lines = shown.map(([name, value]) => `  ${name}: ${value}\n`)
  return `${head}  features: ${features.join(', ') || 'none'}\n${lines.join('')}`
}
