// The state of a training as a safetensors file: everything that the steps to come depend on, so that they give the same bits.
import type { Tensor } from '../device/tensor.ts'
import { isObject, parseJson, show } from '../files/json.ts'
import { encodeSafetensors, openSafetensors, readTensorF32, type TensorData } from '../files/safetensors.ts'
import type { Source } from '../files/source.ts'
import type { Trainable } from './parameters.ts'
import type { Position } from './trainer.ts'

/** Every tensor that a state holds, by name. */
function stateTensors({ parameters, statistics }: Trainable): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>()
  for (const { name, value, m, v } of parameters) {
    tensors.set(name, value)
    tensors.set(`${name}.first_moment`, m)
    tensors.set(`${name}.second_moment`, v)
  }
  for (const { name, value } of statistics) tensors.set(name, value)
  return tensors
}

/** Encodes the tensors of what is trained and where its training is; `about` is JSON and kept as it is. */
export async function encodeState(
  trained: Trainable,
  position: Position<unknown>,
  about: Record<string, unknown>,
): Promise<Uint8Array[]> {
  const tensors: TensorData[] = []
  for (const [name, tensor] of stateTensors(trained)) {
    tensors.push({ name, dtype: 'F32', shape: tensor.shape, data: await tensor.readF32() })
  }
  return encodeSafetensors(tensors, { position: JSON.stringify(position), about: JSON.stringify(about) })
}

/** A state that has been opened; `load` puts its tensors into something trained of the same make. */
export interface State<Tally> {
  readonly position: Position<Tally>
  readonly about: Record<string, unknown>
  load(trained: Trainable): Promise<void>
}

/** Opens a state; its source stays open until it has been loaded. Throws where it is not what `encodeState` gives. */
export async function openState<Tally>(source: Source): Promise<State<Tally>> {
  const { name } = source
  const { tensors, metadata } = await openSafetensors(source)
  const about = parseJson(metadata.about ?? 'null', `${name}: about`)
  const position = parseJson(metadata.position ?? 'null', `${name}: position`)
  if (!isObject(about) || !isPosition<Tally>(position)) {
    throw new Error(`${name}: is not the state of a training; remove it`)
  }
  return {
    about,
    position,
    async load(trained) {
      const wanted = stateTensors(trained)
      const strange = [...tensors.keys()].find((key) => !wanted.has(key))
      if (strange !== undefined)
        throw new Error(`${name}: has a tensor ${show(strange)} that is not trained; give --restart`)
      for (const [key, tensor] of wanted) {
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

function isPosition<Tally>(value: unknown): value is Position<Tally> {
  if (!isObject(value)) return false
  const { step, updates, tally } = value
  return Number.isSafeInteger(step) && Number.isSafeInteger(updates) && tally !== undefined
}
