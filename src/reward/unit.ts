// What counts once where items have several ratings: the item, or each rating.
//
// By item, a result is about a random rating of a random item; by rating, about a random one of all ratings. The two are the same where
// all items have as many ratings. Heads, calibrations and evaluations all say which they are of.

/** `item`: the ratings of an item share its weight. `rating`: every rating counts alike. */
export type Unit = 'item' | 'rating'

export const UNITS: readonly Unit[] = ['item', 'rating']

/** What fits, calibrations and evaluations count by where nobody says otherwise. */
export const USUAL_UNIT: Unit = 'item'

/** Ratings of one attribute [L], the item of each (absent: its number), and the weight of each (absent: 1). */
export interface UnitRatings {
  /** NaN is missing. */
  readonly ratings: ArrayLike<number>
  readonly rows?: ArrayLike<number>
  readonly weights?: ArrayLike<number>
}

/** The fewest and the most ratings that an item has, of the items that have any. A rating of weight 0 is none. */
export interface RatingCounts {
  readonly least: number
  readonly most: number
}

function countRatings({ ratings, rows, weights }: UnitRatings): Map<number, number> {
  const counts = new Map<number, number>()
  for (let i = 0; i < ratings.length; i++) {
    if (Number.isNaN(ratings[i]) || weights?.[i] === 0) continue
    const item = rows ? rows[i] : i
    counts.set(item, (counts.get(item) ?? 0) + 1)
  }
  return counts
}

/** How many ratings items have; 0 and 0 where there are none. */
export function ratingCounts(rated: UnitRatings): RatingCounts {
  let [least, most] = [Infinity, 0]
  for (const count of countRatings(rated).values()) {
    least = Math.min(least, count)
    most = Math.max(most, count)
  }
  return most === 0 ? { least: 0, most: 0 } : { least, most }
}

/**
 * The weights of ratings [L] by which a unit counts: as they are given by rating, and by item each over the number of ratings of its
 * item. Where all items have as many ratings both are the same, and so are the bits of what is computed: the weights that were given.
 */
export function unitWeights(unit: Unit, rated: UnitRatings): ArrayLike<number> | undefined {
  const { ratings, rows, weights } = rated
  if (unit === 'rating') return weights
  const { least, most } = ratingCounts(rated)
  if (least === most) return weights
  const counts = countRatings(rated)
  return Float32Array.from({ length: ratings.length }, (_, i) => {
    const count = counts.get(rows ? rows[i] : i)
    return count === undefined || Number.isNaN(ratings[i]) ? 0 : (weights?.[i] ?? 1) / count
  })
}

/** Throws unless a value names a unit; `where` is what errors call it. */
export function readUnit(value: unknown, where: string): Unit {
  const unit = UNITS.find((one) => one === value)
  if (unit === undefined) throw new Error(`${where}: must be item or rating, got ${JSON.stringify(value)}`)
  return unit
}
