// The pinball loss of quantile heads on ratings.
//
//   loss = mean over ratings y of an attribute, mean over levels, of max(level * (y - q), (level - 1) * (y - q))
//
// Source: Koenker and Bassett 1978. Where a rating is the quantile itself, the gradient is 0, which is one of its subgradients.
import type { HeadLoss } from './head_task.ts'
import type { RatedExample } from './rated_examples.ts'

/** Sums over ratings. */
export interface RatingSums {
  readonly ratings: number
  /** Of the loss, a mean over levels. */
  readonly loss: number
  /** Ratings and loss of each attribute [M]. */
  readonly byAttribute: readonly { readonly ratings: number; readonly loss: number }[]
}

/** The loss of heads whose output number m K + k is attribute m at level k. */
export function ratingLoss(
  attributes: readonly string[],
  levels: readonly number[],
): HeadLoss<RatedExample, RatingSums> {
  const K = levels.length
  return {
    sequencesOf: ({ tokens }) => [tokens],
    weightOf: ({ ratings }) => ratings.reduce((sum, { length }) => sum + length, 0),
    nothing: { ratings: 0, loss: 0, byAttribute: attributes.map(() => ({ ratings: 0, loss: 0 })) },
    add({ ratings, loss, byAttribute }, example, outputs, gradient) {
      const own = example.ratings.map((values, m) => {
        let sum = 0
        for (const value of values)
          for (let k = 0; k < K; k++) {
            const above = value - outputs[m * K + k]
            const slope = above > 0 ? levels[k] : above < 0 ? levels[k] - 1 : 0
            sum += (slope * above) / K
            gradient[m * K + k] -= slope / K
          }
        return { ratings: values.length, loss: sum }
      })
      return {
        ratings: own.reduce((sum, one) => sum + one.ratings, ratings),
        loss: own.reduce((sum, one) => sum + one.loss, loss),
        byAttribute: own.map((one, m) => ({
          ratings: byAttribute[m].ratings + one.ratings,
          loss: byAttribute[m].loss + one.loss,
        })),
      }
    },
    means({ ratings, loss, byAttribute }) {
      const each = byAttribute.flatMap((one, m) =>
        one.ratings > 0 ? [[`loss/${attributes[m]}`, one.loss / one.ratings] as const] : [],
      )
      return { loss: loss / ratings, ...(attributes.length > 1 && Object.fromEntries(each)) }
    },
    evaluated: ['loss', ...(attributes.length > 1 ? attributes.map((name) => `loss/${name}`) : [])],
  }
}
