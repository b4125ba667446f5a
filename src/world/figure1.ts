// The paper's Figure 1 in the small world: the ratings of an answer that unites the raters and of one that splits them, as they are, as
// the reward model estimates them, and as a point estimate.
import { cdf, rearrange } from '../reward/distribution.ts'
import type { RewardModel } from '../reward/model.ts'
import { trueDensity, trueMean, trueRatings } from './truth.ts'
import { END, idOf, PROMPTS } from './words.ts'

export interface Figure1 {
  readonly prompt: string
  readonly answer: string
  /** Values at which the densities are given. */
  readonly values: readonly number[]
  readonly truth: { readonly density: readonly number[]; readonly expectation: number }
  readonly estimate: {
    readonly density: readonly number[]
    readonly expectation: number
    readonly quantiles: readonly number[]
  }
}

const ANSWERS = ['the soup was gentle honest fresh', 'the soup was epic fierce loud', 'the soup was droll sly arch']
/** Quantiles say how much probability lies between values, not how it lies there: densities are means over so much. */
const WINDOW = 0.2
const [LOW, HIGH, POINTS] = [-1.2, 1.6, 141]

/** Makes the figure's numbers with a reward model. */
export async function drawFigure1(model: RewardModel): Promise<Figure1[]> {
  const prompt = PROMPTS[0]
  const answers = ANSWERS.map((text) => Uint32Array.from([...text.split(' ').map(idOf), END]))
  const scores = await model.score(answers.map((tokens) => ({ input_ids: [...prompt.tokens, ...tokens] })))
  const values = Array.from({ length: POINTS }, (_, i) => LOW + ((HIGH - LOW) * i) / (POINTS - 1))
  return answers.map((tokens, i) => {
    const ratings = trueRatings(prompt, tokens)
    const { expectation, quantiles } = scores[i]
    const curve = rearrange(quantiles)
    return {
      prompt: prompt.text,
      answer: ANSWERS[i],
      values,
      truth: { density: values.map((value) => trueDensity(ratings, value)), expectation: trueMean(ratings) },
      estimate: {
        density: values.map(
          (value) =>
            (cdf(curve, model.levels, value + WINDOW / 2) - cdf(curve, model.levels, value - WINDOW / 2)) / WINDOW,
        ),
        expectation,
        quantiles: Array.from(curve),
      },
    }
  })
}
