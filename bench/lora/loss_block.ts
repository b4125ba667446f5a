// The loss block alone, at Llama 3's vocabulary: time and memory beside the weights. Part of npm run bench -- lora --loss.
import type { Device } from '../../src/device/device.ts'
import type { Tensor } from '../../src/device/tensor.ts'
import type { Source } from '../../src/files/source.ts'
import { parseLlamaConfig } from '../../src/llama/config.ts'
import { openOutputLayer } from '../../src/llama/output_layer.ts'
import { random } from '../../test/random.ts'

const [R, D, V] = [1020, 576, 128_256]

/** A source of bf16 numbers from -1/16 to 1/16, made as they are read. */
function randomWeights(bytes: number): Source {
  return {
    name: 'random weights',
    byteLength: bytes,
    async read(offset, length) {
      const data = new Uint16Array(length / 2)
      for (let i = 0; i < data.length; i++) {
        const bits = Math.imul((offset >> 1) + i + 1, 0x9e3779b1)
        // Exponents of 2^-6 to 2^-5, sign and mantissa at random.
        data[i] = ((bits >>> 16) & 0x80ff) | 0x3c00
      }
      return new Uint8Array(data.buffer)
    },
    close: async () => {},
  }
}

export async function lossBlock(device: Device): Promise<void> {
  const config = parseLlamaConfig(
    {
      ...{
        model_type: 'llama',
        architectures: ['LlamaForCausalLM'],
        vocab_size: V,
        hidden_size: D,
        hidden_act: 'silu',
      },
      ...{ intermediate_size: 1536, num_hidden_layers: 1, num_attention_heads: 9, num_key_value_heads: 3 },
      ...{ rms_norm_eps: 1e-5, rope_theta: 1e5, max_position_embeddings: 2048 },
    },
    'loss block',
  )
  const bytes = 2 * V * D
  const source = randomWeights(bytes)
  const info = { name: 'lm_head.weight', dtype: 'BF16' as const, shape: [V, D], begin: 0, end: bytes, source }
  const output = await openOutputLayer(device, config, info)
  const draw = random(5)
  const x: Tensor = device.tensor([R, D], { data: draw.normal(R * D) })
  const dx = device.tensor([R, D])
  const wanted = Uint32Array.from(draw.integers(R, 0, V))
  await device.done()
  const before = device.statistics()
  const total = (): number => device.statistics().bytes + device.statistics().keptBytes
  const room = total()
  let peak = 0
  const times: number[][] = [[], []]
  for (let round = 0; round < 3; round++) {
    const begin = performance.now()
    const measured = await output.measure(x, wanted)
    const between = performance.now()
    measured.backward(new Float32Array(R).fill(1 / R), dx)
    peak = Math.max(peak, device.statistics().bytes)
    await device.done()
    times[0]!.push(between - begin)
    times[1]!.push(performance.now() - between)
    measured.destroy()
  }
  const [forward, backward] = times.map((values) => values.sort((a, b) => a - b)[1]!)
  const mib = (value: number): string => (value / 2 ** 20).toFixed(1)
  console.log(
    `loss block: ${R} tokens, vocabulary ${V}, states of ${D}: measure ${forward!.toFixed(0)} ms, backward ${backward!.toFixed(0)} ms, ` +
      `${mib(peak - before.bytes)} MiB beside the weights of ${mib(bytes)} MiB; memory grew by ${mib(total() - room)} MiB`,
  )
  console.log(JSON.stringify({ lossBlock: { R, D, V, forward, backward, bytes: peak - before.bytes } }))
  for (const tensor of [x, dx]) tensor.destroy()
  output.destroy()
}
