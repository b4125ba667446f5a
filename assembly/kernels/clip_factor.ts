// The norm of sums of squares, in double precision, and the factor that limits it.

export function clip_factor(sums: usize, clip: usize, P: u32, max_norm: f32, start: u32, end: u32): void {
  let sum: f64 = 0
  for (let p: usize = 0; p < P; p++) sum += <f64>load<f32>(sums + p * 4)
  const norm = <f32>sqrt<f64>(sum)
  const factor: f32 = max_norm / (norm + 1e-6)
  store<f32>(clip, norm)
  store<f32>(clip, max_norm <= 0 || factor > 1 ? 1 : factor, 4)
}
