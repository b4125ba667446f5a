// The kernels of quantile regression: exports and their memory layout, nothing else.
//
// All arrays lie where the caller put them, aligned to 64 bytes. Functions that end in (start, end) work on a half-open range and
// may run on several threads at once; each element of a result depends on its operands alone, not on the ranges.

import { correlate, predict } from './certificate'
import { gather, squares, times, transposed } from './features'
import { gram_pack } from './gram'
import { pack, panel_times, panel_times_wide, panel_transposed } from './panel'
import { bf16 } from '../widen'

export { heap_base, scratch_bytes, set_scratch } from '../scratch'
export { cholesky, solve } from './cholesky'
export { add_partials } from './features'
export { gram_panel_bytes, gram_tiles } from './gram'
export { factor_block, factor_copy, factor_rows, factor_solve, factor_update, factor_width } from './factor'
export { advance, along, scores } from './labels'
export { model_times, sweep } from './model'
export { mirror, syrk } from './panel'

export function gather_f32(
  x: usize,
  stride: u32,
  rows: usize,
  count: u32,
  columns: usize,
  blocks: u32,
  panel: usize,
  start: u32,
  end: u32,
): void {
  gather<f32>(x, stride, rows, count, columns, blocks, panel, start, end)
}

export function gather_bf16(
  x: usize,
  stride: u32,
  rows: usize,
  count: u32,
  columns: usize,
  blocks: u32,
  panel: usize,
  start: u32,
  end: u32,
): void {
  gather<bf16>(x, stride, rows, count, columns, blocks, panel, start, end)
}

export function panel_times_f32(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_times<f32>(panel, rows, blocks, marks, p, out, start, end)
}

export function panel_times_bf16(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_times<bf16>(panel, rows, blocks, marks, p, out, start, end)
}

export function panel_times_wide_f32(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_times_wide<f32>(panel, rows, blocks, marks, p, out, start, end)
}

export function panel_times_wide_bf16(
  panel: usize,
  rows: u32,
  blocks: u32,
  marks: usize,
  p: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_times_wide<bf16>(panel, rows, blocks, marks, p, out, start, end)
}

export function panel_transposed_f32(
  panel: usize,
  rows: u32,
  rowsOf: usize,
  s: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_transposed<f32>(panel, rows, rowsOf, s, count, out, start, end)
}

export function panel_transposed_bf16(
  panel: usize,
  rows: u32,
  rowsOf: usize,
  s: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  panel_transposed<bf16>(panel, rows, rowsOf, s, count, out, start, end)
}

export function pack_f32(
  panel: usize,
  rows: u32,
  slots: usize,
  scale: usize,
  rowsOf: usize,
  weight: usize,
  depth: u32,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  pack<f32>(panel, rows, slots, scale, rowsOf, weight, depth, left, right, start, end)
}

export function pack_bf16(
  panel: usize,
  rows: u32,
  slots: usize,
  scale: usize,
  rowsOf: usize,
  weight: usize,
  depth: u32,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  pack<bf16>(panel, rows, slots, scale, rowsOf, weight, depth, left, right, start, end)
}

export function times_f32(
  x: usize,
  stride: u32,
  columns: usize,
  w: usize,
  count: u32,
  rows: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  times<f32>(x, stride, columns, w, count, rows, out, start, end)
}

export function times_bf16(
  x: usize,
  stride: u32,
  columns: usize,
  w: usize,
  count: u32,
  rows: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  times<bf16>(x, stride, columns, w, count, rows, out, start, end)
}

export function transposed_f32(
  x: usize,
  stride: u32,
  rows: usize,
  s: usize,
  count: u32,
  size: u32,
  partial: usize,
  start: u32,
  end: u32,
): void {
  transposed<f32>(x, stride, rows, s, count, size, partial, start, end)
}

export function transposed_bf16(
  x: usize,
  stride: u32,
  rows: usize,
  s: usize,
  count: u32,
  size: u32,
  partial: usize,
  start: u32,
  end: u32,
): void {
  transposed<bf16>(x, stride, rows, s, count, size, partial, start, end)
}

export function squares_f32(x: usize, stride: u32, rows: u32, size: u32, partial: usize, start: u32, end: u32): void {
  squares<f32>(x, stride, rows, size, partial, start, end)
}

export function squares_bf16(x: usize, stride: u32, rows: u32, size: u32, partial: usize, start: u32, end: u32): void {
  squares<bf16>(x, stride, rows, size, partial, start, end)
}

export function gram_pack_f32(
  x: usize,
  stride: u32,
  rows: usize,
  q: usize,
  count: u32,
  cols: usize,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  gram_pack<f32>(x, stride, rows, q, count, cols, left, right, start, end)
}

export function gram_pack_bf16(
  x: usize,
  stride: u32,
  rows: usize,
  q: usize,
  count: u32,
  cols: usize,
  left: usize,
  right: usize,
  start: u32,
  end: u32,
): void {
  gram_pack<bf16>(x, stride, rows, q, count, cols, left, right, start, end)
}

export function predict_f32(
  x: usize,
  stride: u32,
  index: usize,
  w: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  predict<f32>(x, stride, index, w, count, out, start, end)
}

export function predict_bf16(
  x: usize,
  stride: u32,
  index: usize,
  w: usize,
  count: u32,
  out: usize,
  start: u32,
  end: u32,
): void {
  predict<bf16>(x, stride, index, w, count, out, start, end)
}

export function correlate_f32(
  x: usize,
  stride: u32,
  rows: u32,
  u: usize,
  size: u32,
  partial: usize,
  absolute: u32,
  start: u32,
  end: u32,
): void {
  correlate<f32>(x, stride, rows, u, size, partial, absolute, start, end)
}

export function correlate_bf16(
  x: usize,
  stride: u32,
  rows: u32,
  u: usize,
  size: u32,
  partial: usize,
  absolute: u32,
  start: u32,
  end: u32,
): void {
  correlate<bf16>(x, stride, rows, u, size, partial, absolute, start, end)
}
