// A software Vulkan for Node without any system package: SwiftShader and a Vulkan loader, kept brotli-packed in the npm
// package @sparticuz/chromium. They are unpacked once into a cache folder; the tests get their Chromium the same way.

import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { constants, homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { brotliDecompress } from 'node:zlib'

const PACKAGE = '@sparticuz/chromium'
// Written last, so that its presence says that an unpacking came to its end.
const RECORD = 'unpacked.json'
// Keeps the loader mapped; not among Node's constants (dlfcn.h of glibc).
const RTLD_NODELETE = 0x1000

/** What can be unpacked, and the archives under bin/ of the package that it is made of. */
const ARCHIVES = {
  swiftshader: ['swiftshader.tar.br'],
  // Chromium looks for SwiftShader beside itself; al2023 has the few libraries it needs from the system, under lib/.
  chromium: ['chromium.br', 'swiftshader.tar.br', 'al2023.tar.br'],
}

export type Unpackable = keyof typeof ARCHIVES

/** One file of an archive. */
export interface TarFile {
  readonly name: string
  readonly mode: number
  readonly data: Uint8Array
}

/** Whether the package has binaries for this machine. */
export const hasBinaries = process.platform === 'linux' && process.arch === 'x64'

/**
 * Makes SwiftShader usable in this process and gives the path of its driver file for VK_DRIVER_FILES. Loads the
 * package's Vulkan loader where the system has none. Throws where the package is missing; needs `hasBinaries`.
 */
export async function softwareDriver(): Promise<string> {
  const folder = await unpack('swiftshader')
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen
  if (!load('libvulkan.so.1', RTLD_NOW | RTLD_GLOBAL)) {
    const path = join(folder, 'libvulkan.so.1')
    if (!load(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE)) {
      throw new Error(
        `webgpu:software: the Vulkan loader ${path} could not be loaded; set PINBALL_CACHE to a folder that allows execution`,
      )
    }
  }
  return join(folder, 'vk_swiftshader_icd.json')
}

/** Says whether the dynamic linker finds a library; an ordinary library stays loaded although it is no Node add-on. */
export function load(library: string, flags: number = constants.dlopen.RTLD_NOW): boolean {
  try {
    process.dlopen({ exports: {} }, library, flags)
  } catch (error) {
    return String(error).includes('did not self-register')
  }
  return true
}

/**
 * Unpacks a part of the package, unless an intact copy is cached, and gives its folder. Every file is written under
 * a temporary name and renamed, and its size is checked on later runs: processes may do this at the same time, and what
 * an interrupted one left behind is repaired.
 */
export async function unpack(what: Unpackable): Promise<string> {
  const { bin, version } = await findPackage(what)
  const caches = cacheFolders()
  for (const cache of caches) {
    const folder = join(cache, `${what}-${version}`)
    if ((await ours(cache)) && (await intact(folder))) return folder
  }
  const failures: string[] = []
  let files: TarFile[] | undefined
  for (const cache of caches) {
    const folder = join(cache, `${what}-${version}`)
    if (!(await writable(cache, folder, failures))) continue
    files ??= await readArchives(bin, what)
    for (const file of files) await writeOnce(join(folder, file.name), file.data, file.mode)
    const sizes = Object.fromEntries(files.map((file) => [file.name, file.data.byteLength]))
    await writeOnce(join(folder, RECORD), new TextEncoder().encode(JSON.stringify(sizes)), 0o644)
    return folder
  }
  throw new Error(`cache: no writable folder (${failures.join('; ')}); set PINBALL_CACHE to one`)
}

async function findPackage(what: Unpackable): Promise<{ bin: string; version: string }> {
  let main: string
  try {
    main = createRequire(import.meta.url).resolve(PACKAGE)
  } catch {
    const name = what === 'swiftshader' ? 'webgpu:software' : what
    throw new Error(`${name}: the npm package ${PACKAGE} is not installed; run npm install --save-dev ${PACKAGE}`)
  }
  // The package exports neither its package.json nor bin/, so they are looked for above its main file.
  for (let folder = dirname(main); folder !== dirname(folder); folder = dirname(folder)) {
    const text = await readFile(join(folder, 'package.json'), 'utf8').catch(() => '{}')
    const { name, version } = JSON.parse(text) as { name?: string; version?: string }
    if (name === PACKAGE && version) return { bin: join(folder, 'bin'), version }
  }
  throw new Error(`${PACKAGE}: no package.json of that name above ${main}; install it again`)
}

/** Cache folders in order of preference: what the user set, what the system has for this, a private temporary folder. */
function cacheFolders(): string[] {
  const { PINBALL_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env
  if (PINBALL_CACHE) return [PINBALL_CACHE]
  const home = homedir()
  const systems: Partial<Record<NodeJS.Platform, string>> = {
    darwin: join(home, 'Library', 'Caches'),
    win32: LOCALAPPDATA || join(home, 'AppData', 'Local'),
  }
  const system = systems[process.platform] ?? (XDG_CACHE_HOME || join(home, '.cache'))
  return [join(system, 'pinball'), temporaryCache()]
}

function temporaryCache(): string {
  return join(tmpdir(), `pinball-${process.getuid?.() ?? 'user'}`)
}

// Native code is loaded from the cache, so a folder that another user put in the shared temporary folder is refused.
async function ours(cache: string): Promise<boolean> {
  if (cache !== temporaryCache() || process.getuid === undefined) return true
  return (await stat(cache).catch(() => null))?.uid === process.getuid()
}

async function intact(folder: string): Promise<boolean> {
  try {
    const sizes = JSON.parse(await readFile(join(folder, RECORD), 'utf8')) as Record<string, number>
    for (const [name, size] of Object.entries(sizes)) {
      if ((await stat(join(folder, name))).size !== size) return false
    }
    return Object.keys(sizes).length > 0
  } catch {
    return false
  }
}

async function writable(cache: string, folder: string, failures: string[]): Promise<boolean> {
  try {
    await mkdir(cache, { recursive: true, mode: 0o700 })
    if (!(await ours(cache))) throw new Error(`${cache} belongs to another user`)
    await mkdir(folder, { recursive: true })
    const probe = join(folder, `${process.pid}.${Math.random().toString(36).slice(2)}.tmp`)
    await (await open(probe, 'wx')).close()
    await rm(probe)
    return true
  } catch (error) {
    failures.push(error instanceof Error ? error.message : String(error))
    return false
  }
}

/** Writes a file unless it is there in its full size; readers see the old file or the new one, never a part. */
async function writeOnce(path: string, data: Uint8Array, mode: number): Promise<void> {
  const present = await stat(path).catch(() => null)
  if (present?.size === data.byteLength && !path.endsWith(RECORD)) return
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const temporary = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}.tmp`
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(data)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
}

async function readArchives(bin: string, what: Unpackable): Promise<TarFile[]> {
  const files: TarFile[] = []
  for (const archive of ARCHIVES[what]) {
    const path = join(bin, archive)
    const packed = await readFile(path).catch((error: Error) => {
      throw new Error(`${PACKAGE}: cannot read ${path}: ${error.message}; install the package again`)
    })
    const data = await promisify(brotliDecompress)(packed).catch((error: Error) => {
      throw new Error(`${PACKAGE}: ${path} is damaged: ${error.message}; install the package again`)
    })
    if (archive.endsWith('.tar.br')) files.push(...readTar(data, path))
    else files.push({ name: archive.replace(/\.br$/, ''), mode: 0o755, data })
  }
  return files
}

/**
 * Reads the regular files of a tar archive (POSIX.1-1988 ustar and GNU; folders are left out). Throws on anything that
 * these archives do not need, on a wrong checksum, on sizes past the end and on names that leave the folder.
 */
export function readTar(bytes: Uint8Array, from: string): TarFile[] {
  const files: TarFile[] = []
  const text = (at: number, length: number) => {
    const end = bytes.subarray(at, at + length).indexOf(0)
    return new TextDecoder().decode(bytes.subarray(at, at + (end < 0 ? length : end)))
  }
  for (let at = 0; at + 512 <= bytes.length; ) {
    const header = bytes.subarray(at, at + 512)
    if (header.every((byte) => byte === 0)) return files
    // The checksum counts its own eight bytes as spaces.
    const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0)
    const fields = { mode: text(at + 100, 8), size: text(at + 124, 12), checksum: text(at + 148, 8) }
    const size = Number.parseInt(fields.size, 8)
    const name = [text(at + 345, text(at + 257, 6) === 'ustar' ? 155 : 0), text(at, 100)].filter(Boolean).join('/')
    if (Number.parseInt(fields.checksum, 8) !== sum) throw new Error(`${from}: wrong tar checksum at byte ${at}`)
    if (!/^[0-7]+ ?$/.test(fields.size) || at + 512 + size > bytes.length) {
      throw new Error(`${from}: ${name} has size "${fields.size}" (octal), ${bytes.length - at - 512} bytes are left`)
    }
    const type = text(at + 156, 1)
    if (type !== '' && type !== '0' && type !== '5')
      throw new Error(`${from}: ${name} has tar type ${type}, must be a file or folder`)
    if (name.startsWith('/') || name.split('/').includes('..')) throw new Error(`${from}: ${name} leaves the folder`)
    if (type !== '5')
      files.push({
        name,
        mode: Number.parseInt(fields.mode, 8) & 0o777,
        data: bytes.subarray(at + 512, at + 512 + size),
      })
    at += 512 + Math.ceil(size / 512) * 512
  }
  throw new Error(`${from}: the tar archive ends without its end mark`)
}
