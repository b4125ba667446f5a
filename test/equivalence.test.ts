// Pairs of computations that must agree, on every back end.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Device } from '../src/device/device.ts'
import { widenBF16, widenF16 } from '../src/files/safetensors.ts'
import type { ModelFiles } from '../src/files/source.ts'
import { unpad } from '../src/llama/batch.ts'
import { type Llama, type LoadOptions, loadLlama, type StatesOptions } from '../src/llama/forward.ts'
import { close, tolerance } from './assert.ts'
import { closeDevices, testDevices } from './device.ts'
import { changedModel, fixtureModel } from './fixture.ts'
import { hiddenOf, openReference } from './hidden.ts'
import { random } from './random.ts'

test.after(closeDevices)

const VOCABULARY = 97
// The feed-forward size of llama/gqa, its longest sum.
const LONGEST_SUM = 88

function sequencesOf(lengths: readonly number[], seed: number): Uint32Array[] {
  const numbers = random(seed)
  return lengths.map((length) => numbers.integers(length, 0, VOCABULARY))
}

/** Runs `body` with a model of the fixtures on every device. */
async function onEvery(
  path: string | ModelFiles,
  body: (llama: Llama, device: Device) => Promise<void>,
  options?: LoadOptions,
): Promise<void> {
  const files = typeof path === 'string' ? await fixtureModel(path) : path
  for (const device of await testDevices()) {
    const llama = await loadLlama(device, files, options)
    try {
      await body(llama, device)
    } finally {
      llama.destroy()
    }
  }
}

/** For what is computed in another order: equal up to rounding. */
function same(actual: readonly Float32Array[], expected: readonly ArrayLike<number>[], name: string): void {
  assert.is(actual.length, expected.length, name)
  actual.forEach((x, i) => {
    close(x, expected[i], tolerance(LONGEST_SUM, expected[i]), `${name}, sequence ${i}`)
  })
}

function identical(actual: readonly Float32Array[], expected: readonly Float32Array[], name: string): void {
  assert.is(actual.length, expected.length, name)
  actual.forEach((x, i) => {
    close(x, expected[i], 0, `${name}, sequence ${i}`)
  })
}

test('alone = in a batch', () =>
  onEvery('llama/gqa', async (llama, device) => {
    const sequences = sequencesOf([3, 40, 1, 8, 17, 9, 64], 1)
    const batch = await hiddenOf(llama, sequences)
    const alone: Float32Array[] = []
    for (const sequence of sequences) alone.push((await hiddenOf(llama, [sequence]))[0])
    identical(batch, alone, device.description)
  }))

test('company does not matter: the same sequence among others, in any place', () =>
  onEvery('llama/gqa', async (llama, device) => {
    const [probe, ...others] = sequencesOf([21, 50, 2, 33], 2)
    const first = await hiddenOf(llama, [probe, ...others])
    const last = await hiddenOf(llama, [...others.map((tokens) => tokens.map((t) => (t + 1) % VOCABULARY)), probe])
    identical([last[3]], [first[0]], device.description)
  }))

test('permuted batch = permuted result', () =>
  onEvery('llama/sharded', async (llama, device) => {
    const sequences = sequencesOf([12, 1, 35, 70, 8], 3)
    const order = [3, 0, 4, 2, 1]
    const straight = await hiddenOf(llama, sequences)
    const permuted = await hiddenOf(
      llama,
      order.map((i) => sequences[i]),
    )
    identical(
      permuted,
      order.map((i) => straight[i]),
      device.description,
    )
  }))

test('left padding = right padding = none', () =>
  onEvery('llama/tied', async (llama, device) => {
    const sequences = sequencesOf([5, 20, 1, 13], 4)
    const T = 20
    const pad = 96
    const padded = (left: boolean) => ({
      tokens: sequences.map((s) => {
        const padding = new Array<number>(T - s.length).fill(pad)
        return left ? [...padding, ...s] : [...s, ...padding]
      }),
      mask: sequences.map((s) => Array.from({ length: T }, (_, t) => Number(left ? t >= T - s.length : t < s.length))),
    })
    const none = await hiddenOf(llama, sequences)
    for (const left of [true, false]) {
      const { tokens, mask } = padded(left)
      const name = `${left ? 'left' : 'right'}, ${device.description}`
      identical(await hiddenOf(llama, unpad(tokens, mask)), none, name)
    }
  }))

test('hidden states of a prefix = prefix of the hidden states', () =>
  onEvery('llama/gqa', async (llama, device) => {
    const [whole] = sequencesOf([80], 5)
    const D = llama.config.hidden
    const [all] = await hiddenOf(llama, [whole])
    const lengths = [1, 2, 8, 9, 31, 64, 79]
    const prefixes = await hiddenOf(
      llama,
      lengths.map((length) => whole.slice(0, length)),
    )
    identical(
      prefixes,
      lengths.map((length) => all.subarray(0, length * D)),
      device.description,
    )
  }))

/** The states at some positions, and what `hidden` gives there. */
async function chosenStates(
  llama: Llama,
  sequences: readonly Uint32Array[],
  positions: readonly number[][],
  options?: StatesOptions,
): Promise<{ actual: Float32Array[]; expected: Float32Array[] }> {
  const D = llama.config.hidden
  const all = await hiddenOf(llama, sequences)
  const expected = positions.flatMap((own, s) => own.map((t) => all[s].slice(t * D, (t + 1) * D)))
  const states = await llama.states(sequences, positions, options)
  const x = await states.x.readF32()
  const actual = states.rows.flatMap((own) => Array.from(own, (row) => x.slice(row * D, (row + 1) * D)))
  states.destroy()
  return { actual, expected }
}

test('states of some tokens = theirs among all', async () => {
  for (const path of ['llama/gqa', 'llama/tied', 'llama/sharded']) {
    await onEvery(path, async (llama, device) => {
      const sequences = sequencesOf([3, 90, 1, 70, 20], 11)
      const some = [[2], [89, 17, 63, 64, 65], [0], [], [19, 0, 19]]
      const { actual, expected } = await chosenStates(llama, sequences, some)
      identical(actual, expected, `${path}, ${device.description}`)
      const every = sequences.map((tokens) => Array.from(tokens, (_, t) => t))
      const whole = await chosenStates(llama, sequences, every)
      identical(whole.actual, whole.expected, `${path}, all, ${device.description}`)
    })
  }
})

test('beginnings computed once = computed for every sequence', async () => {
  const [a, b, c] = sequencesOf([70, 130, 200], 12)
  const ends = sequencesOf([1, 9, 64, 3, 65, 70, 2, 33], 13)
  const after = (prefix: Uint32Array, end: Uint32Array) => Uint32Array.from([...prefix, ...end])
  const sequences = [after(a, ends[0]), c, after(b, ends[1]), ...ends.slice(2, 5).map((end) => after(a, end)), ends[5]]
  sequences.push(after(b, ends[6]), after(b, ends[7]), sequences[2])
  const groups = [
    { members: [3, 0, 5, 4], common: 70 },
    { members: [6], common: 0 },
    { members: [2, 9, 7, 8], common: 100 },
    { members: [1], common: 0 },
  ]
  // Last tokens, tokens inside of a common beginning and at both of its ends.
  const positions = sequences.map(({ length }) => [length - 1, 0, ...[69, 70, 99, 100].filter((t) => t < length)])
  for (const path of ['llama/gqa', 'llama/sharded']) {
    await onEvery(path, async (llama, device) => {
      const { actual, expected } = await chosenStates(llama, sequences, positions, { groups })
      identical(actual, expected, `${path}, ${device.description}`)
    })
  }
})

test('lengths below, at and above tile sizes = the reference', async () => {
  const files = await fixtureModel('llama/gqa')
  const reference = await openReference(files)
  const sequences = sequencesOf([7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300], 6)
  const expected = sequences.map(reference)
  await onEvery(files, async (llama, device) => {
    same(await hiddenOf(llama, sequences), expected, device.description)
    same(await hiddenOf(llama, [sequences[12]]), [expected[12]], `${device.description}, alone`)
  })
})

test('the same input gives the same bits', () =>
  onEvery('llama/odd', async (llama, device) => {
    const sequences = [Uint32Array.of(1, 60, 0), new Uint32Array(40).fill(7)]
    identical(await hiddenOf(llama, sequences), await hiddenOf(llama, sequences), device.description)
  }))

test('any number of threads gives the same bits', async () => {
  const sequences = sequencesOf([1, 45, 18], 7)
  const results: Float32Array[][] = []
  await onEvery('llama/gqa', async (llama, device) => {
    if (device.kind === 'wasm') results.push(await hiddenOf(llama, sequences))
  })
  assert.is(results.length, 2, 'two CPU devices, of many threads and of one')
  identical(results[0], results[1], 'threads')
})

test('layers read from the file at every pass = layers kept', async () => {
  const sequences = sequencesOf([6, 41], 8)
  for (const path of ['llama/gqa', 'llama/sharded']) {
    const kept: Float32Array[][] = []
    await onEvery(path, async (llama) => void kept.push(await hiddenOf(llama, sequences)), { stream: false })
    const streamed = async (llama: Llama, device: Device) => {
      const expected = kept.shift()!
      identical(await hiddenOf(llama, sequences), expected, `${path}, ${device.description}`)
      identical(await hiddenOf(llama, sequences), expected, `${path}, second pass, ${device.description}`)
    }
    await onEvery(path, streamed, { stream: true })
  }
})

test('embedding rows read from the file = the whole table on the device', async () => {
  const sequences = sequencesOf([10, 180], 9)
  // The same rows, spread over a table too large to be kept: 2^18 + 2^12 rows of 64 f16 or bf16 values are 32.5 MiB.
  const V = 2 ** 18 + 2 ** 12
  const place = (token: number) => (token * 104729) % V
  const large = await changedModel('llama/gqa', {
    config: (json) => void Object.assign(json, { vocab_size: V }),
    tensors: (all) => {
      all.delete('lm_head.weight')
      const name = 'model.embed_tokens.weight'
      const { dtype, data } = all.get(name)!
      const rows = new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2)
      const table = new Uint16Array(V * 64)
      for (let token = 0; token < VOCABULARY; token++) {
        table.set(rows.subarray(token * 64, (token + 1) * 64), place(token) * 64)
      }
      all.set(name, { name, dtype, shape: [V, 64], data: table })
    },
  })
  const small: Float32Array[][] = []
  await onEvery('llama/gqa', async (llama) => void small.push(await hiddenOf(llama, sequences)))
  await onEvery(large, async (llama, device) => {
    const moved = sequences.map((tokens) => tokens.map(place))
    identical(await hiddenOf(llama, moved), small.shift()!, device.description)
  })
})

test('weights stored in 16 bits = the same values stored as f32', async () => {
  const sequences = sequencesOf([4, 30], 10)
  for (const [path, widen] of [['llama/gqa', widenBF16] as const, ['llama/tied', widenF16] as const]) {
    const wide = await changedModel(path, {
      tensors: (all) => {
        for (const tensor of [...all.values()]) {
          const bits = new Uint16Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength / 2)
          const data = new Float32Array(bits.length)
          widen(bits, data)
          all.set(tensor.name, { ...tensor, dtype: 'F32', data })
        }
      },
    })
    const narrow: Float32Array[][] = []
    await onEvery(path, async (llama) => void narrow.push(await hiddenOf(llama, sequences)))
    await onEvery(wide, async (llama, device) => {
      same(await hiddenOf(llama, sequences), narrow.shift()!, `${path}, ${device.description}`)
    })
  }
})

test.run()
