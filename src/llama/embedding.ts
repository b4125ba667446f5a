// Embedding rows: from the device where the table is small, else only the rows that a batch needs, from the file.
import type { Device } from '../device/device.ts'
import type { DType, Tensor, TensorData } from '../device/tensor.ts'
import type { TensorInfo } from '../files/safetensors.ts'
import { storedKernels } from '../generated/kernels.ts'
import { checkFinite, elements, loadLinear, readPieces, storageOf } from './weights.ts'

/** Tables up to this size stay on the device; a larger one (501 MiB in a 1B Llama) would cost more than all its reads. */
const RESIDENT_BYTES = 2 ** 25
/** Rows read from the file at a time. */
const READS = 64

export interface Embedding {
  /** y[n] = table[tokens[n]]; y [N, D]. Tokens must be below the vocabulary's size. */
  rows(tokens: Uint32Array, y: Tensor): Promise<void>
  destroy(): void
}

/** Checks every value of the table once and keeps it on the device if it is small. */
export async function openEmbedding(device: Device, info: TensorInfo): Promise<Embedding> {
  const dtype = storageOf(info)
  const run = (table: Tensor, tokens: Uint32Array, y: Tensor): void => {
    const index = device.tensor([tokens.length], { dtype: 'u32', label: 'tokens', data: tokens })
    device.run(storedKernels.embedding[dtype as 'f32' | 'f16' | 'bf16'], { table, tokens: index, y })
    index.destroy()
  }
  if (info.end - info.begin <= RESIDENT_BYTES) {
    const table = await loadLinear(device, info)
    return { rows: async (tokens, y) => run(table, tokens, y), destroy: () => table.destroy() }
  }
  await readPieces(info, () => {})
  return {
    async rows(tokens, y) {
      const unique = [...new Set(tokens)].sort((a, b) => a - b)
      const place = new Map(unique.map((token, row) => [token, row]))
      const table = device.tensor([unique.length, info.shape[1]!], {
        dtype,
        label: 'embedding rows',
        data: await gather(info, unique, dtype),
      })
      const local = tokens.map((token) => place.get(token)!)
      run(table, local, y)
      table.destroy()
    },
    destroy: () => {},
  }
}

/** Reads the given rows of a [V, D] tensor from its file. */
async function gather(info: TensorInfo, rows: readonly number[], dtype: DType): Promise<TensorData> {
  const width = info.shape[1]!
  const rowBytes = width * (dtype === 'f32' ? 4 : 2)
  const data = elements(new Uint8Array(rows.length * rowBytes), dtype)
  for (let begin = 0; begin < rows.length; begin += READS) {
    await Promise.all(
      rows.slice(begin, begin + READS).map(async (row, i) => {
        const bytes = await info.source.read(info.begin + row * rowBytes, rowBytes)
        const values = elements(bytes, dtype)
        checkFinite(values, dtype, info, row * width)
        data.set(values, (begin + i) * width)
      }),
    )
  }
  return data
}
