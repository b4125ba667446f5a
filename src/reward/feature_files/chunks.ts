// Chunks: rows that are computed and kept together, so that a crash costs no more than one of them.

/** Rows [first, first + count) of a file. */
export interface Chunk {
  readonly first: number
  readonly count: number
  /** Of all sides. */
  readonly tokens: number
}

// Rows are packed and not padded, so batches of some thousand tokens are full in chunks of this size, and no more than this is lost.
const CHUNK_ROWS = 1024
const CHUNK_TOKENS = 32_768

/** Divides rows of so many tokens into chunks: as many as fit, at least one. Depends on nothing else. */
export function planChunks(tokens: readonly number[]): Chunk[] {
  const chunks: { first: number; count: number; tokens: number }[] = []
  for (const [row, own] of tokens.entries()) {
    const last = chunks[chunks.length - 1]
    if (last && last.count < CHUNK_ROWS && last.tokens + own <= CHUNK_TOKENS) {
      last.count++
      last.tokens += own
    } else chunks.push({ first: row, count: 1, tokens: own })
  }
  return chunks
}

/** What `partName` gives. */
export const PART_NAMES = /^chunk-\d{6,}$/

/** The name of the part that keeps a chunk. */
export function partName(chunk: number): string {
  return `chunk-${String(chunk).padStart(6, '0')}`
}
