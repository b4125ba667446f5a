// What `pinball devices` shows of a device.
import type { DeviceListing } from '../device/listing.ts'

// The limits that computing meets; --json has all.
const OF_INTEREST = /threads|Compute|BufferSize|BufferBindingSize|StorageBuffersPerShaderStage|BindGroups$/

/** Lines of one device: its name, features and those limits that computing meets; `auto` marks what is taken by itself. */
export function deviceReport(listing: DeviceListing, auto: boolean): string {
  const { device, available, description, features, limits } = listing
  const head = `${device}${auto ? ' (auto)' : ''}: ${available ? description : `not available: ${description}`}\n`
  if (!available) return head
  const shown = Object.entries(limits).filter(([name]) => OF_INTEREST.test(name))
  const lines = shown.map(([name, value]) => `  ${name}: ${value}\n`)
  return `${head}  features: ${features.join(', ') || 'none'}\n${lines.join('')}`
}
