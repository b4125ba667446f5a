// npm run reproduce: the tables of models/nano's card for another backbone, from its features.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { tables } from './card.ts'
import { runRecipe } from './recipe.ts'

const HELP = `usage: npm run reproduce -- --model DIR --data DIR --work DIR [--limit N] [--hidden N]

  --model DIR   model directory with a Llama backbone and its tokenizer, as SmolLM2-135M-Instruct
                (test/fixtures/smollm2.py makes it); where its chats are not those of Llama 3, its pinball.json must
                have the "gate_pattern": the tokens that the chat template puts before an answer
  --data DIR    folder with vader-multirater, emobank, fed-dialogue, hh-rlhf-test, llmbar, humanevalpack and prometheus-eval
  --work DIR    where everything is made; what is there already is taken as it is
  --limit N     rows of each set and part at most, the first by hash (default: all)
  --hidden N    units of the gate's hidden layers (default: 64)

Writes WORK/metrics.json and prints the tables.`

const text = { type: 'string' } as const
const { values } = parseArgs({
  options: { model: text, data: text, work: text, limit: text, hidden: text, help: { type: 'boolean' } },
})
const { model, data, work, limit, hidden = '64' } = values
const number = (name: string, value: string): number => {
  if (!/^[1-9]\d*$/.test(value)) throw new Error(`reproduce: --${name} must be a whole number above 0, got ${value}`)
  return Number(value)
}
if (values.help || !model || !data || !work) {
  console.log(HELP)
  process.exit(values.help ? 0 : 2)
}
for (const [option, folder, inside] of [
  ['--model', model, 'config.json'],
  ['--data', data, 'vader-multirater'],
]) {
  if (!existsSync(join(folder, inside)))
    throw new Error(`reproduce: ${option}: ${join(folder, inside)} is missing; see --help`)
}
mkdirSync(work, { recursive: true })
const metrics = await runRecipe({
  model,
  data,
  work,
  hidden: number('hidden', hidden),
  ...(limit !== undefined && { limit: number('limit', limit) }),
})
writeFileSync(join(work, 'metrics.json'), `${JSON.stringify(metrics, null, 1)}\n`)
console.log(tables(metrics))
