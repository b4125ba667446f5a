// pinball rloo on small models: a folder with prompts and rewards, and arguments that are quick.
import { join } from 'node:path'
import { lines, openWorkplace, root, WASM, type Workplace } from './command.ts'

/** 131 tokens, no tokenizer; and one with a tokenizer that is a reward model too. */
export const TINY = join(root, 'test/fixtures/lora/untied/model')
export const TINY_ADAPTER = join(root, 'test/fixtures/lora/untied/adapter')
export const NANO = join(root, 'models/nano')

export const PROMPTS = [[5, 6, 7], [8], [5, 6, 7], [9, 10, 11, 12, 13, 14], [20, 21], [22]].map((input_ids, i) => ({
  id: `p${i}`,
  input_ids,
  label: i,
}))
const TEXTS = [
  { prompt: 'How was the film?', label: 'a' },
  { messages: [{ role: 'user', content: 'And the music?' }] },
  { chosen: '\n\nHuman: Was it long?\n\nAssistant: Not at all.' },
]
/** Small ids are good. */
export const SMALL_IDS =
  'export default (rows) => rows.map(({ completion_ids: ids }) => -ids.reduce((sum, id) => sum + id, 0) / (131 * ids.length))\n'

const NEW = ['--rank', '2', '--alpha', '4']
export const QUICK = ['--k', '3', '--batch', '6', '--max-new-tokens', '7', '--lr', '0.02', ...WASM]
export const tiny = (out: string, ...more: string[]) => [
  'rloo',
  ...['--model', TINY, '--reward', 'small.mjs', '--prompts', 'prompts.jsonl', '--out', out],
  ...NEW,
  ...QUICK,
  ...more,
]
export const nano = (out: string, rewards: readonly string[], ...more: string[]) => [
  ...['rloo', '--model', NANO, '--prompts', 'texts.jsonl', '--out', out, ...NEW],
  ...rewards.flatMap((reward) => ['--reward', reward]),
  ...['--k', '2', '--batch', '6', '--max-new-tokens', '5', '--lr', '0.01', ...WASM],
  ...more,
]

/** A folder to run it in. */
export async function openRlooPlace(): Promise<Workplace> {
  const place = await openWorkplace()
  await place.file('prompts.jsonl', lines(...PROMPTS))
  await place.file('texts.jsonl', lines(...TEXTS))
  await place.file('small.mjs', SMALL_IDS)
  await place.file('length.mjs', 'export const reward = async (rows) => rows.map((row) => row.completion.length)\n')
  return place
}
