// The Bradley-Terry loss of reward models, with margins and a pull of rewards towards 0.
//
//   loss = mean over pairs of softplus(-(r_c - r_r - margin)) + center * (r_c + r_r)^2
//
// Sources: Bradley and Terry 1952; margins: Touvron et al. 2023 (Llama 2), equation 2; centring: Eisenstein et al. 2023. Names and
// their meaning are those of the RewardTrainer of TRL 1.16: `accuracy` counts pairs with r_c > r_r, `margin` is the mean of r_c - r_r.
import type { HeadLoss } from './head_task.ts'
import type { PreferenceRow } from './preference_rows.ts'

/** Sums over pairs. */
export interface PairSums {
  readonly pairs: number
  readonly loss: number
  /** Pairs whose chosen side has the higher reward. */
  readonly right: number
  /** Of r_c - r_r, and of r_c + r_r. */
  readonly difference: number
  readonly rewards: number
  readonly least: number
  readonly most: number
}

const NOTHING: PairSums = {
  ...{ pairs: 0, loss: 0, right: 0, difference: 0, rewards: 0 },
  ...{ least: Infinity, most: -Infinity },
}

/** The loss; `center` is at least 0. */
export function pairLoss(center: number): HeadLoss<PreferenceRow, PairSums> {
  return {
    sequencesOf: ({ chosen, rejected }) => [chosen, rejected],
    weightOf: () => 1,
    nothing: NOTHING,
    add(sums, { margin }, [chosen, rejected], gradient) {
      const z = chosen - rejected - margin
      // e = exp(-|z|) cannot overflow.
      const e = Math.exp(-Math.abs(z))
      const slope = -(z >= 0 ? e : 1) / (1 + e)
      const both = chosen + rejected
      gradient[0] = slope + 2 * center * both
      gradient[1] = -slope + 2 * center * both
      return {
        pairs: sums.pairs + 1,
        loss: sums.loss + Math.max(-z, 0) + Math.log1p(e) + center * both * both,
        right: sums.right + (chosen > rejected ? 1 : 0),
        difference: sums.difference + chosen - rejected,
        rewards: sums.rewards + both,
        least: Math.min(sums.least, chosen, rejected),
        most: Math.max(sums.most, chosen, rejected),
      }
    },
    means: ({ pairs, loss, right, difference, rewards, least, most }) => ({
      loss: loss / pairs,
      accuracy: right / pairs,
      margin: difference / pairs,
      mean_reward: rewards / (2 * pairs),
      min_reward: least,
      max_reward: most,
    }),
    evaluated: ['loss', 'accuracy', 'margin'],
  }
}
