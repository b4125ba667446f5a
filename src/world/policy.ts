// The policy of the small world before reinforcement learning: the seeded base, fine-tuned with LoRA on answers that people of the world
// have written.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import type { StoreTree } from '../files/store.ts'
import type { AdapterProgress } from '../train/adapter_training.ts'
import { type Tuned, trainSft } from '../train/sft.ts'
import { IGNORED, type SftRow } from '../train/sft_rows.ts'
import { writeAnswers } from './answers.ts'

export interface PolicySettings {
  readonly answers: number
  readonly held: number
  readonly steps: number
  readonly batch: number
  readonly lr: number
  readonly rank: number
}

export const POLICY_DEFAULTS: PolicySettings = { answers: 4000, held: 100, steps: 200, batch: 32, lr: 1e-2, rank: 16 }

/** Answers as rows of supervised fine-tuning: the answer is learned, the prompt is not. */
export function sftRows(seed: number, count: number): SftRow[] {
  return writeAnswers(seed, count, 0).map(({ prompt, tokens }) => ({
    tokens: Uint32Array.from([...prompt.tokens, ...tokens]),
    labels: Int32Array.from(
      [...prompt.tokens.map(() => 0), ...tokens].map((token, i) => (i < prompt.tokens.length ? IGNORED : token)),
    ),
  }))
}

/** Fine-tunes the base; `store` keeps the training and, at its end, the adapter. */
export async function tuneWorldPolicy(
  device: Device,
  base: ModelFiles,
  seed: number,
  store: StoreTree,
  { answers, held, steps, batch, lr, rank }: PolicySettings = POLICY_DEFAULTS,
  options: { readonly signal?: AbortSignal; readonly onProgress?: (progress: AdapterProgress) => void } = {},
): Promise<Tuned> {
  const rows = sftRows(seed, answers + held)
  return trainSft(device, base, rows.slice(0, answers), rows.slice(answers), {
    ...{
      rank,
      alpha: 2 * rank,
      batch,
      lr,
      warmup: 0.1,
      maxSteps: steps,
      epochs: Math.ceil((steps * batch) / answers),
      seed,
      store,
    },
    ...options,
  })
}
