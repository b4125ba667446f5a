// Writing to standard output so that nothing is lost or shown twice.
import { writeFileAtomic } from '../files/disk.ts'
import { endQuietly, isReaderGone } from './signals.ts'

/** Writes to standard output and waits until it is taken. A reader that has gone away ends the process quietly. */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (isReaderGone(error)) endQuietly()
      if (error) reject(error)
      else resolve()
    })
  })
}

/** Writes one line of JSON. Throws on numbers that JSON cannot hold, rather than print null. */
export function printJson(value: unknown): Promise<void> {
  const text = JSON.stringify(value, (key, inner: unknown) => {
    if (typeof inner === 'number' && !Number.isFinite(inner)) throw new Error(`output: ${key} is ${inner}`)
    return inner
  })
  return print(`${text}\n`)
}

/** Writes a note to standard error. */
export function note(text: string): void {
  process.stderr.write(`pinball: ${text}\n`)
}

/** Writes a document to a file as indented JSON. */
export async function writeDocument(path: string, document: unknown, indent = 2): Promise<void> {
  await writeText(path, `${JSON.stringify(document, null, indent)}\n`)
}

/** Writes a text to a file. */
export function writeText(path: string, text: string): Promise<void> {
  return writeFileAtomic(path, [new TextEncoder().encode(text)])
}
