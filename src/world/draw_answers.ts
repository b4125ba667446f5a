// Answers that a policy gives to the prompts of the small world.
import type { Device } from '../device/device.ts'
import type { ModelFiles } from '../files/source.ts'
import { chooser } from '../generate/chooser.ts'
import { GENERATION_DEFAULTS } from '../generate/continuation.ts'
import { openDecoder } from '../generate/decoding.ts'
import { readAdapter } from '../llama/adapter_files.ts'
import { openBackbone } from '../llama/forward.ts'
import { loadAdapter, NO_ADAPTER } from '../llama/lora_adapter.ts'
import { openOutputLayer, outputInfo } from '../llama/output_layer.ts'
import { openModelDirectory } from '../reward/directory.ts'
import type { Answer } from './measure.ts'
import { END, PROMPTS } from './words.ts'

/** Samples that are drawn at the same time. */
const SLOTS = 64

/** Draws answers at temperature 1, `samples` to every prompt, ordered by prompt; `longest` is in tokens. */
export async function drawAnswers(
  device: Device,
  { policy, adapter }: { readonly policy: ModelFiles; readonly adapter: ModelFiles | null },
  {
    samples,
    longest,
    seed,
    signal,
  }: { readonly samples: number; readonly longest: number; readonly seed: number; readonly signal?: AbortSignal },
): Promise<Answer[]> {
  const directory = await openModelDirectory(policy)
  const owned: { destroy(): void }[] = []
  const own = <T extends { destroy(): void }>(thing: T): T => {
    owned.push(thing)
    return thing
  }
  try {
    const model = own(await openBackbone(device, directory))
    const output = own(await openOutputLayer(device, model.config, outputInfo(directory.tensors, model.config)!))
    const { layers } = own(
      adapter ? loadAdapter(device, await readAdapter(adapter, model.config), model.config) : NO_ADAPTER,
    )
    const decoder = own(openDecoder({ device, model, output, adapter: layers }, { slots: SLOTS }))
    const prompts = PROMPTS.map(({ tokens }, key) => ({ tokens, samples, key }))
    const settings = { ...GENERATION_DEFAULTS, seed, maxNewTokens: longest, stopTokens: [END] }
    const drawn = await decoder.run(prompts, chooser(settings, prompts), { maxNewTokens: longest, signal })
    return drawn.map(({ prompt, tokens }) => ({ prompt: PROMPTS[prompt], tokens }))
  } finally {
    for (const thing of owned.reverse()) thing.destroy()
    await directory.close()
  }
}
