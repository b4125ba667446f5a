// Sets values to zero at random and scales the others up; the same numbers give the same mask, forward and backward.
//
//   y[n, d] = keep(key[n], stream, d) ? x[n, d] * scale : 0
//
// x    [N, D]
// key  [N]     u32   of a row: a hash of the seed and of what the row is, not of where it lies
// y    [N, D]  output
//
// scalar    stream u32      a number for each use within a step
// scalar    threshold u32   2^32 times the share that is dropped
// scalar    scale           1 / (1 - share)
// dispatch  ceil(N * D / WG)   one thread per element
// split     N
// flops     N * D
// bytes     8 * N * D + 4 * N
// source    Srivastava et al. 2014; the finaliser of MurmurHash3 as a counter-based generator
//
// The hash is computed in whole numbers, so that every device draws the same mask.

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * params.D) {
    return;
  }
  let n = i / params.D;
  let d = i % params.D;
  // Two rounds of xor and product leave no pattern of the counters in the upper bits.
  var bits = ((d + 1u) * 0x9e3779b9u) ^ (key[n] + params.stream * 0x85ebca6bu);
  bits = (bits ^ (bits >> 16u)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13u)) * 0xc2b2ae35u;
  bits = bits ^ (bits >> 16u);
  y[i] = select(0.0, x[i] * params.scale, bits >= params.threshold);
}
