// Makes the heads, the gate, the transform and the calibration of models/nano by Pinball's own commands, from its backbone, and writes
// what held-out data say into metrics.json and the tables of CARD.md.
//
//   npx tsx models/nano/make_reward.ts --data DIR --work DIR
//
// DIR of --data holds vader-multirater, emobank, fed-dialogue, hh-rlhf-test, llmbar, humanevalpack and prometheus-eval. Steps whose results
// are in --work are not done again.
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { fillCard } from '../card.ts'
import { assemble, runRecipe } from '../recipe.ts'

const HERE = dirname(fileURLToPath(import.meta.url))

const { values } = parseArgs({ options: { data: { type: 'string' }, work: { type: 'string' } } })
if (!values.data || !values.work)
  throw new Error('make_reward: --data and --work are needed; see the head of this file')

const recipe = { model: HERE, data: values.data, work: values.work, hidden: 64 }
const metrics = await runRecipe(recipe)
const whole = await assemble(recipe)
writeFileSync(join(HERE, 'metrics.json'), `${JSON.stringify(metrics, null, 1)}\n`)
for (const file of ['config.json', 'pinball.json', 'model.safetensors', 'calibration.safetensors']) {
  copyFileSync(join(whole, file), join(HERE, file))
}
const card = join(HERE, 'CARD.md')
writeFileSync(card, fillCard(readFileSync(card, 'utf8'), metrics))
