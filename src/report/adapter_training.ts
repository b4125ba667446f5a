// What a fine-tuning with LoRA reports: notes before it begins, a line while it goes on, and a line at its end.
import type { Device } from '../device/device.ts'
import type { AdapterProgress } from '../train/adapter_training.ts'
import type { QuantileResult } from '../train/quantile_model.ts'
import type { RewardResult } from '../train/reward_model.ts'
import type { RolloutProgress } from '../train/rloo/collect.ts'
import type { RlooResult } from '../train/rloo/rloo.ts'
import type { SftResult } from '../train/sft.ts'
import { counted, duration } from './draw.ts'
import { rate, type Timed } from './training.ts'

/** A peak of the learning rate below this is noted. */
const LORA_LR = 1e-5

/** Notes about settings and rows that are allowed and may not be meant. */
export function beginningNotes(
  lr: number,
  dropped: number,
  maxLength: number,
  long = `rows of more than ${maxLength} tokens`,
): string[] {
  const notes: string[] = []
  if (lr < LORA_LR) notes.push(`--lr ${lr} is small for LoRA, which mostly needs 1e-4 and more`)
  if (dropped > 0) notes.push(`${long} are left out: ${dropped}`)
  return notes
}

type Point = Timed<AdapterProgress>

/** Tokens a second of what was computed; null where nothing was. */
export function tokenRate(first: Point | undefined, last: Point | undefined): number | null {
  return rate(first, last, ({ tokens }) => tokens)
}

/** Steps, tokens a second, loss, norm, time left, and the memory of the process, which has `bytes`, and of the device. */
export function stepText(first: Point, last: Point, device: Device, bytes: number): string {
  const part = (last.done - first.done) / (last.steps - first.done)
  const seconds = (last.at - first.at) / 1000
  const found = tokenRate(first, last)
  const { reward = null, klSeq = null, drawn = null } = last.policy ?? {}
  return [
    `step ${Math.min(last.steps, Math.floor(last.done) + 1)} of ${last.steps}`,
    ...(drawn === null ? [] : [drawnText(drawn)]),
    ...(found === null ? [] : [`${Number(found.toPrecision(3))} tokens a second`]),
    ...(reward === null ? [] : [`reward ${reward.toFixed(4)}`]),
    ...(klSeq === null ? [] : [`KL ${klSeq.toFixed(4)}`]),
    ...(last.loss === null || last.policy ? [] : [`loss ${last.loss.toFixed(4)}`]),
    ...(last.gradNorm === null ? [] : [`gradient norm ${Number(last.gradNorm.toPrecision(3))}`]),
    ...(part > 0 ? [`${duration((seconds * (1 - part)) / part)} left`] : []),
    memoryText(device, bytes),
  ].join(', ')
}

function drawnText({ step, done, completions }: RolloutProgress): string {
  return `${step === null ? 'evaluating: ' : ''}${done} of ${completions} completions`
}

function memoryText(device: Device, bytes: number): string {
  const gigabytes = (count: number) => `${(count / 1e9).toFixed(2)} GB`
  const own = gigabytes(bytes)
  return device.kind === 'wasm' ? own : `${own} and ${gigabytes(device.statistics().bytes)} on the GPU`
}

/** What was reached on rows. */
export function sftText(result: SftResult): string {
  return tunedText(result, counted(result.rows, 'row'), '', 'row')
}

/** What was reached on pairs. */
export function rewardText(result: RewardResult): string {
  return tunedText(result, counted(result.pairs, 'pair'), ` and accuracy ${result.eval_accuracy?.toFixed(4)}`, 'pair')
}

/** What was reached on rows with ratings. */
export function quantileText(result: QuantileResult): string {
  return tunedText(result, `${counted(result.rows, 'row')} with ${counted(result.ratings, 'rating')}`, '', 'row')
}

/** What was reached on prompts. */
export function rlooText({ parameters, steps, prompts, reward, kl_seq, eval_reward, held }: RlooResult): string {
  const told = [`${parameters} parameters`, `${steps} steps on ${prompts} prompts`, `reward ${reward?.toFixed(4)}`]
  if (kl_seq !== null) told.push(`KL ${kl_seq.toFixed(4)} nats a completion`)
  if (eval_reward !== null) told.push(`reward ${eval_reward.toFixed(4)} on ${held} held-out prompts`)
  return told.join(', ')
}

type Tuned = Pick<SftResult, 'parameters' | 'steps' | 'loss' | 'eval_loss' | 'held'>

function tunedText({ parameters, steps, loss, eval_loss, held }: Tuned, data: string, also: string, unit: string) {
  const told = [`${parameters} parameters`, `${counted(steps, 'step')} on ${data}`, `loss ${loss?.toFixed(4)}`]
  if (eval_loss !== null) told.push(`${eval_loss.toFixed(4)}${also} on ${counted(held, `held-out ${unit}`)}`)
  return told.join(', ')
}
