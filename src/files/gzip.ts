// Gzip as a stream of bytes, in any runtime.
import { printable } from './json.ts'

/** Says whether bytes begin as a gzip file does. */
export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b
}

/**
 * Decompresses a gzip file piece by piece. Throws `NAME: not valid gzip ...` where the bytes are damaged or end too early; what
 * the chunks themselves throw is passed on.
 */
export async function* gunzip(chunks: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  yield* transformed(chunks, new DecompressionStream('gzip'), (error) => {
    const reason = printable(error instanceof Error ? error.message : String(error))
    return new Error(`${name}: not valid gzip, it is damaged or cut off (${reason}); fetch the file again`)
  })
}

/** Compresses chunks into one gzip file; the same bytes give the same file. */
export async function* gzip(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* transformed(chunks, new CompressionStream('gzip'), (error) => error)
}

async function* transformed(
  chunks: AsyncIterable<Uint8Array>,
  stream: DecompressionStream | CompressionStream,
  explain: (error: unknown) => unknown,
): AsyncGenerator<Uint8Array> {
  const writer = stream.writable.getWriter()
  const reader: ReadableStreamDefaultReader<Uint8Array> = stream.readable.getReader()
  let failed: { error: unknown } | null = null
  const feeding = (async () => {
    try {
      for await (const chunk of chunks) {
        await writer.ready
        // A copy: the source may use its buffer again before the stream has taken it.
        writer.write(new Uint8Array(chunk)).catch(() => {})
      }
    } catch (error) {
      failed ??= { error }
      await writer.abort(error).catch(() => {})
      return
    }
    await writer.close()
  })()
  feeding.catch(() => {}) // the reader reports it
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      yield value
    }
    await feeding
  } catch (error) {
    if (failed) throw (failed as { error: unknown }).error
    throw explain(error)
  } finally {
    // A reader that stops early lets go of the rest.
    await reader.cancel().catch(() => {})
    await writer.abort().catch(() => {})
  }
}
