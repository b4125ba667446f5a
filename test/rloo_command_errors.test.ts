// What pinball rloo refuses: rewards, prompts, options, folders.
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { each, lines, type Workplace } from './command.ts'
import { NANO, nano, openRlooPlace, PROMPTS, TINY, tiny } from './rloo_arguments.ts'

let place: Workplace
test.before(async () => {
  place = await openRlooPlace()
})
test.after(() => place.remove())

each<readonly [string, string, RegExp]>(
  'rewards that are refused:',
  [
    [
      'a module without a function',
      'export const other = 1\n',
      /bad-0\.mjs: must export a function as default or as "rew/,
    ],
    ['no module', 'export default (\n', /bad-1\.mjs: cannot be loaded as a module: /],
    ['one that throws', 'export default () => { throw new Error("no luck") }\n', /bad-2\.mjs: no luck/],
    ['NaN alone', 'export default (rows) => rows.map(() => NaN)\n', /no completion of the batch has a reward, of 6/],
    [
      'infinite ones',
      'export default (rows) => rows.map((row) => 1 / 0)\n',
      /a reward must be a finite number or null, prompt \d got Infinity/,
    ],
    ['too few', 'export default () => [1]\n', /must give a reward for each of 6 completions, got 1/],
    ['no list', 'export default () => 3\n', /must give a list of rewards, got 3/],
  ],
  async ([, text, message], i) => {
    const name = await place.file(`bad-${i}.mjs`, text)
    await place.refused(
      [
        ...tiny(`bad-${i}`)
          .filter((arg) => arg !== 'small.mjs')
          .flatMap((arg) => (arg === '--reward' ? [arg, name] : [arg])),
      ],
      message,
    )
  },
)

each<readonly [string, string, RegExp, string?]>(
  'prompts that are refused:',
  [
    ['no rows', '', /: has no rows/],
    ['no prompt', lines({ text: 'x' }), /line 1: a row needs/],
    ['an id outside', lines({ input_ids: [131] }), /line 1: input_ids\[0\] must be .* got 131/],
    ['text without a tokenizer', lines({ prompt: 'a' }), /line 1: .* has no tokenizer\.json/],
    [
      'only long ones',
      lines(PROMPTS[3], PROMPTS[3]),
      /nothing to train on: all 2 prompts have 6 tokens or more; --max-prompt or the model sets that \(the first is long/,
      '6',
    ],
  ],
  async ([name, text, message, most], i) => {
    const file = await place.file(`${name.split(' ')[1]}-${i}.jsonl`, text)
    const args = tiny(`prompts-${i}`, ...(most ? ['--max-prompt', most] : []))
    await place.refused(
      args.map((arg) => (arg === 'prompts.jsonl' ? file : arg)),
      message,
    )
    assert.equal(await readdir(join(place.folder, `prompts-${i}`)).catch(() => []), [], 'nothing is left')
  },
)

each<readonly [string, readonly string[], RegExp]>(
  'options that are refused:',
  [
    ['k 1', ['--k', '1'], /--k <n>.*whole number from 2/],
    [
      'a batch that k does not divide',
      ['--batch', '7'],
      /rloo: --batch must be a multiple of k = 3 completions, got 7/,
    ],
    ['no measure', ['--risk', 'bold'], /--risk: .*got "bold"/],
    ['a level outside', ['--risk', 'quantile:1.5'], /--risk: the level of quantile must be/],
    ['temperature 0', ['--temperature', '0'], /Must be a number above 0/],
    ['top-p', ['--top-p', '0.9'], /--top-p must be 1 in training \(a cut distribution .*\), got 0\.9/],
    ['top-k', ['--top-k', '50'], /--top-k must be 0 in training/],
    ['min-p', ['--min-p', '0.1'], /--min-p must be 0 in training/],
    ['dropout', ['--dropout', '0.1'], /--dropout must be 0 in training/],
    ['beta', ['--beta', '-1'], /of at least 0/],
    ['clip', ['--clip', '2'], /above 0 and at most 1/],
    ['reward-clip', ['--reward-clip', '3,1'], /the lower one first/],
    ['missing-eos', ['--missing-eos', 'replace'], /Must be replace:NUMBER, subtract:NUMBER or none/],
    ['penalised without a penalty', ['--truncated', 'penalised'], /--truncated penalised: needs --missing-eos/],
    ['masked with one', ['--truncated', 'masked', '--missing-eos', 'replace:0'], /is not for --truncated masked/],
    ['kl', ['--kl', 'k4'], /Allowed choices/],
    ['rescale', ['--rescale'], /--rescale: is for --risk utility/],
    ['retries', ['--reward-retries', '3'], /--reward-retries: is for a --reward URL/],
    ['no place', ['--reward', '0.5:'], /Must be a directory, a module or an address/],
    ['nowhere', ['--reward', 'nowhere'], /--reward: nowhere: no such directory or module/],
    ['--out', ['--out', TINY], /must not be what --model reads/],
    ['--out of a reward', ['--reward', NANO, '--out', NANO], /--out: must not be what --reward reads/],
    ['reliability', ['--reliability', '1'], /above 0 and below 1/],
    ['eval-steps', ['--eval-steps', '2'], /--eval-steps: needs --eval/],
    ['preset', ['--preset', 'trl-2'], /Allowed choices/],
  ],
  async ([, more, message]) => place.refused(tiny('options', ...more), message, 2),
)

test('what only a reward model can do is refused without one', async () => {
  const url = 'http://127.0.0.1:1/'
  await place.refused(nano('x', [url], '--risk', 'utility'), /--risk: is for a reward model/, 2)
  await place.refused(tiny('x', '--reliability'), /reliability needs a reward model with quantiles/)
  await place.refused(tiny('x2', '--reward', TINY), /untied\/model/)
  const text = tiny('x3', '--reward', url, '--reward-retries', '0')
  await place.refused(text, /http:\/\/127\.0\.0\.1:1\/: reads texts, and the policy has no tokenizer\.json/)
  await mkdir(join(place.folder, 'taken'))
  await writeFile(join(place.folder, 'taken/mine'), 'mine')
  await place.refused(tiny('taken'), /taken: must be missing, empty or hold work of "rloo", it has "mine"/)
})

test.run()
