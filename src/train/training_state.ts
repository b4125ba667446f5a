// The state of a training as a safetensors file: everything that the steps to come depend on, so that they give the same bits.

import type { Tensor } from '../device/tensor.ts'
import { isObject, parseJson, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import type { PairModel, Position } from './pair_training.ts'

/** Every tensor that a state holds, by name. */
function stateTensors({ parameters, statistics }: PairModel): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>()
  for (const { name, value, m, v } of parameters) {
    tensors.set(name, value)
    tensors.set(`${name}.first_moment`, m)
    tensors.set(`${name}.second_moment`, v)
  }
  for (const { name, value } of statistics) tensors.set(name, value)
  return tensors
}

/** Encodes the tensors of a model and where its training is; `about` is kept as it is. */
export async function encodeState(
  model: PairModel,
  position: Position,
  about: Record<string, unknown>,
): Promise<Uint8Array[]> {
  const tensors: TensorData[] = []
  for (const [name, tensor] of stateTensors(model)) {
    tensors.push({ name, dtype: 'F32', shape: tensor.shape, data: await tensor.readF32() })
  }
  const metadata = { position: JSON.stringify(position), about: JSON.stringify(about) }
  return encodeSafetensors(tensors, metadata)
}

/** A state that has been opened; `load` puts its tensors into a model of the same make. */
export interface State {
  readonly position: Position
  readonly about: Record<string, unknown>
  load(model: PairModel): Promise<void>
}

/** Opens a state; its source stays open until it has been loaded. Throws where it is not what `encodeState` gives. */
export async function openState(source: Source): Promise<State> {
  const { name } = source
  const { tensors, metadata } = await openSafetensors(source)
  const about = parseJson(metadata.about ?? 'null', `${name}: about`)
  const position = parseJson(metadata.position ?? 'null', `${name}: position`)
  if (!isObject(about) || !isPosition(position)) throw new Error(`${name}: is not the state of a training; remove it`)
  return {
    about,
    position,
    async load(model) {
      for (const [key, tensor] of stateTensors(model)) {
        const info = tensors.get(key)
        if (info === undefined || show(info.shape) !== show(tensor.shape)) {
          throw new Error(
            `${name}: tensor ${show(key)} must be ${show(tensor.shape)}, got ${show(info?.shape ?? null)}`,
          )
        }
        tensor.write(await readTensorF32(info))
      }
    },
  }
}

function isPosition(value: unknown): value is Position {
  if (!isObject(value) || !Number.isSafeInteger(value.step) || !Array.isArray(value.epochs)) return false
  return [value.recent, value.epoch].every(
    (sums) => isObject(sums) && ['pairs', 'loss', 'correct'].every((key) => typeof sums[key] === 'number'),
  )
}
