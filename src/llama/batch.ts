// Padded batches to sequences: the engine works on packed rows, so that padding never enters a computation.

/**
 * Takes the padding off a batch. `tokens` and `mask` are [B, T] as rows; a mask of 1 keeps a token. Kept tokens must be
 * contiguous in each row (padding on the left, on the right, or both). Throws on rows of other lengths, gaps and empty rows.
 */
export function unpad(tokens: readonly ArrayLike<number>[], mask: readonly ArrayLike<number>[]): Uint32Array[] {
  if (tokens.length !== mask.length) throw new Error(`unpad: ${tokens.length} rows of tokens, ${mask.length} of mask`)
  return tokens.map((row, b) => {
    const keep = mask[b]!
    if (row.length !== keep.length)
      throw new Error(`unpad: row ${b} has ${row.length} tokens and a mask of ${keep.length}`)
    const kept: number[] = []
    let ended = false
    for (let t = 0; t < row.length; t++) {
      if (!keep[t]) ended = kept.length > 0
      else if (ended) throw new Error(`unpad: the mask of row ${b} has a gap before position ${t}`)
      else kept.push(row[t]!)
    }
    if (kept.length === 0) throw new Error(`unpad: row ${b} is all padding`)
    return Uint32Array.from(kept)
  })
}
