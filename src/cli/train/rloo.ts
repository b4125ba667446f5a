// pinball rloo: a policy is trained by RLOO on rewards, risk-neutral or risk-aware.
import { type Command, InvalidArgumentError, Option } from 'commander'
import { rlooText } from '../../report/adapter_training.ts'
import type { ScoreKind } from '../../reward/scoring.ts'
import { parseRisk } from '../../train/rloo/model_reward.ts'
import { type RewardChoice, rlooRecipe } from '../../train/rloo/recipe.ts'
import {
  checkRloo,
  RLOO_DEFAULTS,
  RLOO_PRESETS,
  type RlooPreset,
  type RlooSettings,
  type Truncated,
} from '../../train/rloo/settings.ts'
import { parseLambda, positive, realNumber, usageError, wholeNumber } from '../options.ts'
import { note } from '../output.ts'
import {
  type AdapterCommand,
  adapterOptions,
  atLeast0,
  count,
  OUT_HELP,
  runAdapterTraining,
  told,
} from './adapter_options.ts'
import { openReward, parseReward, type RewardOption, shownReward } from './rewards.ts'

interface RlooCommand extends Omit<AdapterCommand, 'data' | 'maxLength'> {
  readonly prompts: string
  readonly reward: readonly RewardOption[]
  readonly preset: RlooPreset
  readonly risk?: string
  readonly lambda?: number
  readonly rescale?: boolean
  readonly rewardTokens?: 'text' | 'policy'
  readonly rewardTimeout?: number
  readonly rewardRetries?: number
  readonly kl: RlooSettings['klEstimator']
  readonly scaleAdvantages?: boolean
  readonly truncated: 'kept' | 'masked' | 'penalised'
  readonly missingEos: Truncated
  readonly entropy: number
  readonly k: number
  readonly maxPrompt: number
  readonly maxNewTokens: number
  readonly beta: number
  readonly temperature: number
  readonly updates: number
  readonly clip: RlooSettings['clip']
  readonly aggregation: RlooSettings['aggregation']
  readonly rewardScale: number
  readonly rewardBias: number
  readonly rewardClip: readonly [number, number] | null
  readonly reliability: number | null
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
}

const EXAMPLES = `
Prompts, as they may be mixed in one file; each row is a group of --k completions of its own:
  {"prompt": "..."}                          through the chat template; or a list of messages
  {"messages": [..., {"role": "user", "content": "..."}]}
  {"chosen": "Human: ... Assistant: ..."}    a conversation as text, as in HH-RLHF, or a list of messages; its last answer is left out
  {"input_ids": [1, 2, 3]}                   tokens
"id" names a row in generations.jsonl, "label" and all other fields are for the rewards. Prompts of --max-prompt tokens or more are
left out and counted.

--reward is a model directory, a module or an address; several are added up by their weights, as --reward 0.7:DIR --reward 0.3:URL.
  DIR      a reward model reads the text that is drawn in its own template; --reward-tokens policy gives it the policy's tokens. --risk
           says which number of its distribution is the reward: neutral (the expectation), utility (-mean exp(-lambda r); --rescale:
           with slope 1 at the mean of the first rewards, so that --beta weighs the same for every lambda), cvar:0.1, quantile:0.1,
           certainty-equivalent.
  MODULE   exports a function as default or as "reward" that takes rows {prompt, completion, messages, label, row, prompt_ids,
           completion_ids, finish_reason} and gives as many numbers, or a promise of them.
  URL      is sent {"query": [...], "prompts": [...], "labels": [...]} and answers {"rewards": [...]}, as reward servers of OpenRLHF do;
           "query" is prompt and completion as text. Server errors and dropped or slow connections are tried again.
null or NaN is no reward: the completion is in no baseline and has no gradient. Infinite rewards, other answers and a batch without any
reward stop the training; the steps before are saved.

The advantage of a completion is its reward minus --beta times the sum of its log-probability ratios to the reference, minus the mean of
the same over the other completions of its prompt. The reference is the model with the adapter off; with --adapter, which the policy
then begins as, a frozen copy of that. The loss is a mean over completions of a clipped ratio of probabilities times the advantage:
--aggregation token has a ratio for each token and a mean over tokens, constant divides the same by --max-new-tokens instead. --truncated
says what becomes of completions that no end of turn ended: masked ones have no gradient, and stay in baseline and divisor; penalised
ones have the reward that --missing-eos says. --reliability scales advantages down where the central share of the calibrated reward
distribution is wide. --temperature is that of policy and reference alike; top-k, top-p, min-p and repetition penalties are refused, as
the log-probabilities that are trained on would not be those that were drawn from. --preset trl-0.9 is what TRL did at the paper's time
(temperature 0.7, four updates of each rollout, no clipping of gradients), trl-1 what it does now; options that are given come first.

A step draws --batch completions for --batch / --k prompts, and computes --micro-batch at a time (by default as many whole groups as
have 1,024 tokens in all on a CPU, 4,096 on a GPU). In the log, "reward" is the weighted sum before clipping and KL, and
frac_reward_zero_std is of the same (TRL takes it after the KL). generations.jsonl has all that was drawn. --eval draws one completion for each held-out prompt.
${OUT_HELP}

Examples:
  $ pinball rloo --model ./SmolLM2-135M --adapter sft --reward ./my-qrm --prompts prompts.jsonl --batch 64 --max-steps 200 --out policy
  $ pinball rloo --model ./SmolLM2-135M --adapter sft --reward ./my-qrm --risk utility --lambda 1 --rescale --prompts prompts.jsonl --out careful
  $ pinball rloo --model ./SmolLM2-135M --reward ./short.mjs --prompts prompts.jsonl --eval 0.1 --eval-steps 10 --out short --json
  $ pinball rloo --model ./SmolLM2-135M --reward 0.7:./my-qrm --reward 0.3:http://127.0.0.1:5000/get_reward --prompts prompts.jsonl --out both
  $ pinball generate --model ./SmolLM2-135M --adapter policy --prompt "How was the film?"
`

const D = RLOO_DEFAULTS
const real = realNumber(Number.isFinite, 'that is finite')
const choice = (flags: string, description: string, choices: readonly string[], value: string) =>
  new Option(flags, description).choices(choices).default(value)

/** Adds the command to the program. */
export function addRloo(program: Command): void {
  const command = program.command('rloo').description('train a policy on rewards by RLOO, risk-neutral or risk-aware')
  command.requiredOption('--reward <place>', 'model directory, module or address; WEIGHT:PLACE weighs it', parseReward)
  adapterOptions(
    command,
    { ...D, maxLength: D.maxPrompt },
    {
      ...{ rows: 'prompts', unit: 'completions', data: '--prompts' },
      limit: ['--max-prompt', 'prompts of that many tokens or more are left out and counted'],
    },
  )
    .addOption(choice('--preset <preset>', 'what holds where the paper is silent', Object.keys(RLOO_PRESETS), 'trl-1'))
    .option('--risk <measure>', 'of a reward model: neutral, utility, cvar:T, quantile:T, certainty-equivalent')
    .option('--lambda <number>', "risk aversion (default: the reward model's)", parseLambda)
    .option('--rescale', 'the utility with slope 1 where the rewards begin')
    .addOption(new Option('--reward-tokens <what>', 'what a reward model reads').choices(['text', 'policy']))
    .option('--reward-timeout <seconds>', 'longest wait for an address (default: 180)', positive)
    .option('--reward-retries <n>', 'tries of an address after the first (default: 4)', wholeNumber(0, 100))
    .option('--reward-scale <number>', 'factor of the reward', real, D.rewardScale)
    .option('--reward-bias <number>', 'added to that', real, D.rewardBias)
    .addOption(told('--reward-clip <a,b>', 'bounds of that, before the KL', parseClip, [null, 'none']))
    .addOption(
      told('--missing-eos <penalty>', 'without an end: replace:NUMBER, subtract:NUMBER or none', parseMissing, [
        { kind: 'kept' },
        'none',
      ]),
    )
    .addOption(
      choice('--truncated <what>', 'completions without an end', ['kept', 'masked', 'penalised'], D.truncated.kind),
    )
    .option('--k <n>', 'completions of a prompt', wholeNumber(2, 2 ** 16), D.k)
    .option('--max-new-tokens <n>', 'longest completion', count, D.maxNewTokens)
    .option('--temperature <number>', 'of policy and reference', positive, D.temperature)
    .option('--beta <number>', 'coefficient of the KL', atLeast0, D.beta)
    .addOption(choice('--kl <estimator>', 'how it is estimated', ['k1', 'k2', 'k3'], D.klEstimator))
    .option('--updates <n>', 'updates of each rollout', wholeNumber(1, 1000), D.updates)
    .addOption(told('--clip <range>', 'of ratios around 1, or LOW,HIGH', parseRange, [D.clip, `${D.clip.low}`]))
    .addOption(
      choice('--aggregation <what>', 'what the loss is a mean of', ['sequence', 'token', 'constant'], D.aggregation),
    )
    .option('--scale-advantages', 'centre advantages and divide them by their deviation over the batch')
    .option('--entropy <number>', 'this times -log p of a completion is added to its reward', real, D.entropyBonus)
    .addOption(
      told('--reliability [share]', 'scale advantages by the width of this share of the reward', parseShare, [
        null,
        'off',
      ]).preset('0.9'),
    )
  for (const [name, value] of [
    ['top-k', D.topK],
    ['top-p', D.topP],
    ['min-p', D.minP],
    ['repetition-penalty', D.repetitionPenalty],
  ] as const)
    command.addOption(new Option(`--${name} <number>`).argParser(real).default(value).hideHelp())
  command.addHelpText('after', EXAMPLES).action((options: RlooCommand) => rloo(options, command))
}

const numbers = (text: string): number[] =>
  text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)))

function parseClip(text: string): readonly [number, number] {
  const [low, high, ...more] = numbers(text)
  if (more.length === 0 && Number.isFinite(low) && low < high) return [low, high]
  throw new InvalidArgumentError('Must be two numbers with a comma, the lower one first.')
}

function parseRange(text: string): RlooSettings['clip'] {
  const [low, high = low, ...more] = numbers(text)
  if (more.length === 0 && low > 0 && low <= 1 && high > 0) return { low, high }
  throw new InvalidArgumentError('Must be a number above 0 and at most 1, or two with a comma.')
}

function parseMissing(text: string): Truncated {
  const [, kind, value] = /^(replace|subtract):([^:\s]+)$/.exec(text) ?? []
  if (text === 'none') return { kind: 'kept' }
  if (kind !== undefined && Number.isFinite(Number(value)))
    return { kind: kind as 'replace' | 'subtract', value: Number(value) }
  throw new InvalidArgumentError('Must be replace:NUMBER, subtract:NUMBER or none.')
}

const parseShare = realNumber((share) => share > 0 && share < 1, 'above 0 and below 1')

async function rloo(options: RlooCommand, command: Command): Promise<void> {
  const settings = readSettings(options, command)
  const reward = await readRewards(options)
  const targets = []
  for (const own of options.reward) targets.push(await openReward(own))
  const ofModel = OF_MODELS.find((key) => options[key] !== undefined)
  if (ofModel !== undefined && !targets.some(({ kind }) => kind === 'model'))
    usageError(`${flagOf(ofModel)}: is for a reward model`)
  const recipe = rlooRecipe(targets, reward, settings)
  await runAdapterTraining(
    'rloo',
    { ...options, maxGradNorm: settings.maxGradNorm, data: options.prompts, maxLength: options.maxPrompt },
    recipe,
    rlooText,
    {
      inputs: { '--reward': options.reward.flatMap(({ url, place }) => (url ? [] : [place])) },
      data: '--prompts',
      long: (tokens) => `prompts of ${tokens} tokens or more`,
      record: { '--reward': options.reward.map(shownReward), '--preset': options.preset },
    },
  )
}

/** The settings of RLOO: those that are given, then the preset's. */
function readSettings(options: RlooCommand, command: Command): Omit<RlooSettings, 'adapter'> {
  const { kl, scaleAdvantages = false, entropy, missingEos, truncated: what, preset } = options
  const penalised = missingEos.kind !== 'kept'
  if (what === 'penalised' && !penalised) usageError('--truncated penalised: needs --missing-eos')
  if (what === 'masked' && penalised) usageError('--missing-eos: is not for --truncated masked')
  const silent = Object.entries(RLOO_PRESETS[preset]).filter(([key]) => command.getOptionValueSource(key) === 'default')
  const given = Object.entries({ ...options, ...Object.fromEntries(silent) }).filter(
    ([key, value]) => key in D && key !== 'adapter' && value !== undefined,
  )
  const settings = {
    ...D,
    ...(Object.fromEntries(given) as Partial<RlooSettings>),
    ...{ klEstimator: kl, normalizeAdvantages: scaleAdvantages, entropyBonus: entropy },
    truncated: what === 'masked' ? { kind: what } : missingEos,
  }
  try {
    checkRloo(settings)
  } catch (error) {
    usageError((error as Error).message)
  }
  const { adapter: _, ...own } = settings
  return own
}

/** An option as it is typed. */
const flagOf = (key: string) => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Options of rewards of one kind. */
const OF_MODELS = ['risk', 'lambda', 'rescale', 'rewardTokens'] as const
const OF_URLS = ['rewardTimeout', 'rewardRetries'] as const

/** How rewards are asked for; wrong usage where an option is for none of them. */
async function readRewards(options: RlooCommand): Promise<RewardChoice> {
  const { reward, risk = 'neutral', lambda, rescale = false, rewardTokens, rewardTimeout, rewardRetries } = options
  const unused = <T extends keyof RlooCommand>(keys: readonly T[]) => keys.find((key) => options[key] !== undefined)
  const ofUrl = unused(OF_URLS)
  if (ofUrl !== undefined && !reward.some(({ url }) => url)) usageError(`${flagOf(ofUrl)}: is for a --reward URL`)
  let kind: ScoreKind
  try {
    kind = parseRisk(risk)
  } catch (error) {
    usageError(`--risk: ${(error as Error).message.replace('expectation, ', 'neutral, ')}`)
  }
  if (rescale && kind.kind !== 'utility') usageError('--rescale: is for --risk utility')
  return {
    ...{ risk: kind, lambda, rescale, policyTokens: rewardTokens === 'policy' },
    http: {
      timeoutSeconds: rewardTimeout,
      tries: rewardRetries === undefined ? undefined : rewardRetries + 1,
      onRetry,
    },
  }
}

const onRetry = (line: string) => note(`rloo: note: ${line}`)
