// pinball devices: what can compute here, with its limits and features.
import type { Command } from 'commander'
import { listDevices } from '../device/listing.ts'
import { deviceReport } from '../report/devices.ts'
import { withDevice } from './engine.ts'
import { print, printJson } from './output.ts'

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
      const devices = await listDevices()
      // Opened as every command does: a GPU that is there may still fail.
      const { auto, choice } = await withDevice({ device: 'auto' }, async ({ name, choice }) => ({
        auto: name,
        choice,
      }))
      if (json) return printJson({ auto, choice, devices })
      const lines = devices.map((listing) => deviceReport(listing, listing.device === auto))
      await print(`${lines.join('\n')}\nauto takes ${choice}\n`)
    })
}
