// The kernels of quantile regression: exports and their memory layout, nothing else.
//
// All arrays lie where the caller put them, aligned to 64 bytes. Functions that end in (start, end) work on a half-open range and
// may run on several threads at once; each element of a result depends on its operands alone, not on the ranges.

import { correlate, predict } from './certificate'
import { add_squares, add_transposed, gather, times } from './features'
import { gram_pack } from './gram'
import { bf16 } from '../widen'

export { heap_base, scratch_bytes, set_scratch } from '../scratch'
export { cholesky, solve } from './cholesky'
export { gram_panel_bytes, gram_tiles } from './gram'
export { factor_block, factor_copy, factor_rows, factor_solve, factor_update, factor_width } from './factor'
export { advance, along, scores } from './labels'
export { model_times, sweep } from './model'
export { mirror, pack, panel_times, panel_times_wide, panel_transposed, syrk } from './panel'

export function gather_f32(
  x: usize,
  stride: u32,
  rows: usize,
  count: u32,
  columns: usize,
  scale: usize,
  blocks: u32,
  panel: usize,
  start: u32,
  end: u32,
): void {
  gather<f32>(x, stride, rows, count, columns, scale, blocks, panel, start, end)
}

export function gather_bf16(
  x: usize,
  stride: u32,
  rows: usize,
  count: u32,
  columns: usize,
  scale: usize,
  blocks: u32,
  panel: usize,
  start: u32,
  end: u32,
): void {
  gather<bf16>(x, stride, rows, count, columns, scale, blocks, panel, start, end)
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

export function add_transposed_f32(
  x: usize,
  stride: u32,
  rows: usize,
  s: usize,
  count: u32,
  g: usize,
  start: u32,
  end: u32,
): void {
  add_transposed<f32>(x, stride, rows, s, count, g, start, end)
}

export function add_transposed_bf16(
  x: usize,
  stride: u32,
  rows: usize,
  s: usize,
  count: u32,
  g: usize,
  start: u32,
  end: u32,
): void {
  add_transposed<bf16>(x, stride, rows, s, count, g, start, end)
}

export function add_squares_f32(
  x: usize,
  stride: u32,
  from: u32,
  to: u32,
  squares: usize,
  start: u32,
  end: u32,
): void {
  add_squares<f32>(x, stride, from, to, squares, start, end)
}

export function add_squares_bf16(
  x: usize,
  stride: u32,
  from: u32,
  to: u32,
  squares: usize,
  start: u32,
  end: u32,
): void {
  add_squares<bf16>(x, stride, from, to, squares, start, end)
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
  w: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  predict<f32>(x, stride, w, out, start, end)
}

export function predict_bf16(
  x: usize,
  stride: u32,
  w: usize,
  out: usize,
  start: u32,
  end: u32,
): void {
  predict<bf16>(x, stride, w, out, start, end)
}

export function correlate_f32(
  x: usize,
  stride: u32,
  rows: u32,
  u: usize,
  out: usize,
  absolute: u32,
  start: u32,
  end: u32,
): void {
  correlate<f32>(x, stride, rows, u, out, absolute, start, end)
}

export function correlate_bf16(
  x: usize,
  stride: u32,
  rows: u32,
  u: usize,
  out: usize,
  absolute: u32,
  start: u32,
  end: u32,
): void {
  correlate<bf16>(x, stride, rows, u, out, absolute, start, end)
}
