// Log-probabilities of completions after their prompts, by the training forward, and its way back. The prompt that completions in a
// piece have in common is computed once.
import type { Device } from '../../device/device.ts'
import type { Backbone } from '../../llama/forward.ts'
import type { LoraLayer } from '../../llama/lora.ts'
import type { OutputLayer } from '../../llama/output_layer.ts'
import type { PrefixGroup } from '../../llama/prefix.ts'
import { type LoraGradients, openPass } from '../../llama/training_pass.ts'

/** What a pass computes with. */
export interface PolicyModel {
  readonly device: Device
  readonly model: Backbone
  readonly output: OutputLayer
}

/** A completion after its prompt. */
export interface Continued {
  /** Names the prompt. Completions of one prompt that stand next to each other share its rows. */
  readonly group: number
  readonly prompt: Uint32Array
  /** At least one token. */
  readonly tokens: Uint32Array
}

export interface PolicyPass {
  /** Of each token of each completion. */
  readonly logprobs: readonly Float32Array[]
  /** Of each distribution that a token was drawn from, in nats. */
  readonly entropies: readonly Float32Array[]
  /** Adds to `grads` the gradient of the sum of -slopes * logprobs * factor. At most once. */
  backward(slopes: readonly Float64Array[], factor: number, grads: LoraGradients): Promise<void>
  destroy(): void
}

/** Runs completions under an adapter, with logits divided by the temperature; with `forwardOnly` there is no way back. */
export async function openPolicyPass(
  { device, model, output }: PolicyModel,
  adapter: readonly LoraLayer[],
  completions: readonly Continued[],
  {
    temperature,
    checkpointing,
    forwardOnly = false,
  }: { readonly temperature: number; readonly checkpointing: boolean; readonly forwardOnly?: boolean },
): Promise<PolicyPass> {
  const owned: { destroy(): void }[] = []
  const destroy = (): void => {
    for (const thing of owned.splice(0).reverse()) thing.destroy()
  }
  try {
    const sequences = completions.map(({ prompt, tokens }) => joined(prompt, tokens))
    // What goes no way back needs no buffers that are kept for it; the bits are the same.
    const options = { groups: promptGroups(completions), checkpointing: checkpointing || forwardOnly }
    const pass = await openPass(device, model, adapter, sequences, options)
    owned.push(pass)
    const rows: number[] = []
    const wanted: number[] = []
    for (const [s, { prompt, tokens }] of completions.entries()) {
      for (const [t, token] of tokens.entries()) {
        // The state before a token predicts it.
        rows.push(pass.rowOf(s, prompt.length + t - 1))
        wanted.push(token)
      }
    }
    const x = pass.states(Uint32Array.from(rows))
    const measured = await output.measure(x, Uint32Array.from(wanted), { temperature })
    owned.push(measured)
    let at = 0
    const places = completions.map(({ tokens }) => {
      const begin = at
      at += tokens.length
      return [begin, at] as const
    })
    const cut = (values: Float32Array) => places.map(([begin, end]) => values.slice(begin, end))
    return {
      logprobs: cut(measured.logprobs),
      entropies: cut(measured.entropies),
      async backward(slopes, factor, grads) {
        const coefficients = new Float32Array(rows.length)
        for (const [i, own] of slopes.entries()) {
          const [begin] = places[i]
          for (const [t, slope] of own.entries()) coefficients[begin + t] = slope * factor
        }
        const dx = device.tensor(x.shape, { label: 'gradient of the states' })
        owned.push(dx)
        measured.backward(coefficients, dx)
        await pass.backward(dx, grads)
      },
      destroy,
    }
  } catch (error) {
    destroy()
    throw error
  }
}

function joined(a: Uint32Array, b: Uint32Array): Uint32Array {
  const all = new Uint32Array(a.length + b.length)
  all.set(a)
  all.set(b, a.length)
  return all
}

/**
 * Completions of one prompt share it but for its last token: the state there predicts the first token of each, and every completion
 * has to have a row of its own for what goes back from that.
 */
export function promptGroups(completions: readonly Continued[]): PrefixGroup[] {
  const groups: { members: number[]; common: number; group: number }[] = []
  for (const [s, { group, prompt }] of completions.entries()) {
    const last = groups.at(-1)
    if (last?.group === group) last.members.push(s)
    else groups.push({ members: [s], common: prompt.length - 1, group })
  }
  return groups.map(({ members, common }) => ({ members, common: members.length > 1 ? common : 0 }))
}

/** Rows that completions take, a shared prompt counted once. */
export function rowsOf(completions: readonly Continued[]): number {
  let rows = 0
  for (const { members, common } of promptGroups(completions)) {
    rows += common
    for (const s of members) rows += completions[s].prompt.length - common + completions[s].tokens.length
  }
  return rows
}
