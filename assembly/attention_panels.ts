// Panels of keys and values for the register tile, as attention and its gradients want them.

import { COLUMNS, pack } from './tile'
import { loadPart } from './math'

// Keys, or queries, of a tile.
export const KEYS: usize = 64

// Packs a tile of keys as panels [KEYS / 8, C, 8]: number j lies in `first` where j < within, else in `second`; `edge` has
// room for [8, C].
export function packKeys(
  first: usize,
  second: usize,
  stride: usize,
  within: usize,
  keys: usize,
  C: usize,
  panels: usize,
  edge: usize,
): void {
  for (let j: usize = 0; j < keys; j += COLUMNS) {
    const count = min(COLUMNS, keys - j)
    const to = panels + j * C * 4
    if (j + count <= within) pack<f32>(first + j * stride, stride, count, C, to)
    else if (j >= within) pack<f32>(second + j * stride, stride, count, C, to)
    else {
      for (let i: usize = 0; i < count; i++) {
        memory.copy(edge + i * C * 4, (j + i < within ? first : second) + (j + i) * stride, C * 4)
      }
      pack<f32>(edge, C * 4, count, C, to)
    }
  }
}

// Packs the values of keys begin to end - 1 of a tile as panels [C / 8, KEYS, 8].
export function packValues(v: usize, stride: usize, begin: usize, end: usize, C: usize, panels: usize): void {
  for (let c: usize = 0; c < C; c += 4) {
    // Half of a panel of eight channels.
    let to = panels + (c & ~7) * KEYS * 4 + (c & 4) * 4 + begin * COLUMNS * 4
    for (let j = begin; j < end; j++, to += COLUMNS * 4) {
      v128.store(to, loadPart(v + j * stride + c * 4, <u32>(C - c)))
    }
  }
}
