// Which rows of a cache are free: ranges of neighbouring rows, taken and given back.

interface Range {
  first: number
  count: number
}

/** Rows 0 to `rows` - 1 of a cache. */
export class RowRanges {
  /** In order, none empty, no two of them neighbours. */
  readonly #free: Range[]

  constructor(rows: number) {
    this.#free = rows > 0 ? [{ first: 0, count: rows }] : []
  }

  /** The first of `count` free rows that follow each other, which are then taken; null where there are none. */
  take(count: number): number | null {
    if (count === 0) return 0
    const at = this.#free.findIndex((range) => range.count >= count)
    if (at < 0) return null
    const range = this.#free[at]!
    const { first } = range
    range.first += count
    range.count -= count
    if (range.count === 0) this.#free.splice(at, 1)
    return first
  }

  /** Gives rows back that were taken; a part of what was taken at once may be. */
  give(first: number, count: number): void {
    if (count === 0) return
    const next = this.#free.findIndex((range) => range.first > first)
    const at = next < 0 ? this.#free.length : next
    this.#free.splice(at, 0, { first, count })
    for (const left of [at, at - 1]) {
      const [a, b] = [this.#free[left], this.#free[left + 1]]
      if (!a || !b || a.first + a.count !== b.first) continue
      a.count += b.count
      this.#free.splice(left + 1, 1)
    }
  }
}
