// One step of decoding: the next token of several sequences through all blocks, on the rows of a cache.
//
// A step's calls are prepared once for each number of rows that it may have, and replayed. Rows that nobody asked for fill a step
// up to such a number: they see nothing and are kept nowhere, and no row depends on another.

import type { Calls, Device } from '../device/device.ts'
import { StepList } from '../device/step_list.ts'
import type { Tensor } from '../device/tensor.ts'
import { type BlockBuffers, type BlockRows, block, fewerRows, makeBuffers, projection } from '../llama/block.ts'
import { type Backbone, ropeTables } from '../llama/forward.ts'
import { linearOfFew } from '../llama/linear.ts'
import { type LoraLayer, makeBranches } from '../llama/lora.ts'
import { passTensors } from '../llama/pass_tensors.ts'
import type { LayerWeights } from '../llama/weights.ts'

/** A sequence that goes on. */
export interface StepRow {
  /** The token after those that the cache has. */
  readonly token: number
  /** Its position: number of the tokens before it. */
  readonly position: number
  /** First row and number of the tokens that it shares with others, and first row of those that are its own. */
  readonly prefix: number
  readonly ahead: number
  readonly own: number
}

export interface DecodeStep {
  /** States [R, D] of the R rows; good until the next step. */
  run(rows: readonly StepRow[]): Promise<Tensor>
  destroy(): void
}

/** What is computed together: a register tile has four rows, and few rows have kernels of their own. */
const paddedRows = (rows: number, most: number): number => (rows <= 2 ? rows : Math.min(most, Math.ceil(rows / 4) * 4))

/** No row of any cache: what is written there is left out. */
const NOWHERE = 0xffffffff

interface Prepared {
  readonly x: Tensor
  /** Null where the weights do not stay on the device. */
  readonly steps: StepList['steps'] | null
  record(calls: Calls, layer: number, weights: LayerWeights): void
  recordEnd(calls: Calls): void
}

/**
 * Makes the memory of steps of up to `slots` rows on a cache, one tensor a layer, with positions below `positions`. The adapter's
 * tensors must stay as long as the step.
 */
export function openDecodeStep(
  device: Device,
  model: Backbone,
  adapter: readonly LoraLayer[],
  cache: readonly Tensor[],
  slots: number,
  positions: number,
): DecodeStep {
  const { config } = model
  const { make, index, vector, destroy } = passTensors(device)
  try {
    const tables = ropeTables(config, positions)
    const half = config.headDim / 2
    const [cos, sin] = [vector('cos', tables.cos), vector('sin', tables.sin)].map((all) => all.view([positions, half]))
    const position = index('position', new Uint32Array(slots), slots)
    const places = index('rows of the cache', new Uint32Array(slots).fill(NOWHERE), slots)
    const plan = index('keys of each row', new Uint32Array(4 * slots), slots, 4)
    const all = makeBuffers(config, slots, make)
    const states = make('states', slots, config.hidden)
    const branches = makeBranches(adapter, config, slots, make, { backward: false, dropout: null })
    const tokens = new Uint32Array(slots)
    const numbers = {
      position: new Uint32Array(slots),
      places: new Uint32Array(slots),
      plan: new Uint32Array(4 * slots),
    }
    const known = new Map<number, Prepared>()

    const prepare = async (N: number): Promise<Prepared> => {
      const b: BlockBuffers = fewerRows(all, N)
      const where = position.view([N])
      const rows: BlockRows = {
        cos: cos!,
        sin: sin!,
        position: where,
        chosenPosition: where,
        chosen: null,
        plan: plan.view([N, 4]),
      }
      const written = places.view([N])
      const out = states.view([N, config.hidden])
      const record = (calls: Calls, layer: number, weights: LayerWeights): void => {
        const cached = { ...rows, cache: { kv: cache[layer]!, rows: written, decode: true } }
        block(calls, config, weights, projection(calls, weights, branches[layer], linearOfFew), cached, b)
      }
      const recordEnd = (calls: Calls): void =>
        calls.run('rms_norm', { x: b.y, weight: model.norm, y: out, rstd: b.rstd }, { eps: config.rmsNormEps })
      if (!model.resident) return { x: b.x, steps: null, record, recordEnd }
      const list = new StepList(device)
      for (let layer = 0; layer < config.layers; layer++) record(list, layer, await model.layers(layer))
      recordEnd(list)
      return { x: b.x, steps: list.steps, record, recordEnd }
    }

    return {
      async run(rows) {
        const N = paddedRows(rows.length, slots)
        const prepared = known.get(N) ?? (await prepare(N))
        known.set(N, prepared)
        for (let n = 0; n < N; n++) {
          const row = rows[n]
          tokens[n] = row?.token ?? 0
          numbers.position[n] = row?.position ?? 0
          numbers.places[n] = row ? row.own + row.position - row.ahead : NOWHERE
          numbers.plan.set(row ? [row.position + 1, row.prefix, row.ahead, row.own] : [0, 0, 0, 0], 4 * n)
        }
        position.write(numbers.position.subarray(0, N))
        places.write(numbers.places.subarray(0, N))
        plan.write(numbers.plan.subarray(0, 4 * N))
        await model.embedding.rows(tokens.subarray(0, N), prepared.x)
        if (prepared.steps) device.replay(prepared.steps)
        else {
          for (let layer = 0; layer < config.layers; layer++) prepared.record(device, layer, await model.layers(layer))
          prepared.recordEnd(device)
        }
        return states.view([rows.length, config.hidden])
      },
      destroy,
    }
  } catch (error) {
    destroy()
    throw error
  }
}
