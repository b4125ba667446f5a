// pinball bradley-terry: a linear reward head, trained on pairs; the baseline of most reward models.
import type { Command } from 'commander'
import { trainBradleyTerry } from '../../train/recipes.ts'
import { runTraining, TRAINING_HELP, type TrainingOptions, trainingOptions } from './training.ts'

const EXAMPLES = `${TRAINING_HELP}

The head is one linear map of the state at the last token to a score, "score.weight" [1, D], in the layout of
LlamaForSequenceClassification, without a backbone. "prompt_embeddings" are not needed.

Examples:
  $ pinball bradley-terry --features pairs.safetensors --out bt
  $ pinball bradley-terry --features pairs/ --out bt --lr 1e-3 --weight-decay 0 --json
`

/** Adds the command to the program. */
export function addBradleyTerry(program: Command): void {
  const command = program.command('bradley-terry').description('train a linear Bradley-Terry head on pairs of features')
  trainingOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((options: TrainingOptions) => runTraining('bradley-terry', options, trainBradleyTerry))
}
