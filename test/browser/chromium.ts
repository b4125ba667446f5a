// A real Chromium with WebGPU on the CPU, from npm packages alone: unpacked from @sparticuz/chromium, driven by playwright-core.

import { join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'
import { hasBinaries, unpack } from '../../src/device/webgpu/software.ts'

const ARGUMENTS = [
  '--no-sandbox',
  // Chromium takes a software adapter only when told to.
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  // Containers have a small /dev/shm.
  '--disable-dev-shm-usage',
]

/**
 * Starts Chromium without a window. PINBALL_CHROMIUM is the path of another Chromium or Chrome, for systems that
 * @sparticuz/chromium has no binaries for.
 */
export async function launchChromium(): Promise<Browser> {
  const given = process.env.PINBALL_CHROMIUM
  if (given) return chromium.launch({ executablePath: given, args: ARGUMENTS })
  if (!hasBinaries) {
    const here = `${process.platform} ${process.arch}`
    throw new Error(
      `chromium: npm has one for linux x64 only, this is ${here}; set PINBALL_CHROMIUM to the path of yours`,
    )
  }
  const folder = await unpack('chromium')
  const libraries = [join(folder, 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':')
  const env = { ...process.env, LD_LIBRARY_PATH: libraries } as Record<string, string>
  return chromium.launch({ executablePath: join(folder, 'chromium'), args: ARGUMENTS, env })
}
