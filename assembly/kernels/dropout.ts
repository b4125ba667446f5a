// y = keep ? x * scale : 0, with a mask made of whole numbers.

export function dropout(
  x: usize,
  key: usize,
  y: usize,
  N: u32,
  D: u32,
  stream: u32,
  threshold: u32,
  scale: f32,
  start: u32,
  end: u32,
): void {
  for (let n: usize = start; n < end; n++) {
    const own = load<u32>(key + n * 4) + stream * 0x85ebca6b
    for (let d: u32 = 0; d < D; d++) {
      const at = (n * D + d) * 4
      let bits = ((d + 1) * 0x9e3779b9) ^ own
      bits = (bits ^ (bits >> 16)) * 0x85ebca6b
      bits = (bits ^ (bits >> 13)) * 0xc2b2ae35
      bits = bits ^ (bits >> 16)
      store<f32>(y + at, bits >= threshold ? load<f32>(x + at) * scale : 0)
    }
  }
}
