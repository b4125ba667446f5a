// Calls that are kept as steps, to be recorded together many times.
import type { KernelName } from '../generated/kernels.ts'
import type { Calls, Device } from './device.ts'
import type { Step } from './step.ts'

/** Takes calls in the place of a device: checks each and keeps it as a step. `device.replay(list.steps)` records them. */
export class StepList implements Calls {
  readonly kind: Device['kind']
  readonly steps: Pick<Step, 'device' | 'run'>[] = []
  readonly run: Device['run']

  constructor(device: Device) {
    this.kind = device.kind
    const prepare = device.prepare.bind(device) as (...call: unknown[]) => Step<KernelName>
    this.run = (...call) => void this.steps.push(prepare(...call))
  }
}
