// Adds up the squares of a tensor, block by block: the first half of a norm over many tensors.
//
//   sums[first + b] = sum over the n of block b of x[n]^2;   block b is n = BLOCK b .. BLOCK (b + 1) - 1
//
// x     [N]
// sums  [P]  in place, all but the blocks of x stay
//
// scalar    first u32           where the blocks of x begin
// dispatch  ceil(N / BLOCK)     one workgroup per block
// split     ceil(N / BLOCK)
// flops     2 * N
// bytes     4 * N
// source    definition

const BLOCK = 4096u;
const WG = 256u;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let b = wg.y * groups.x + wg.x;
  let begin = b * BLOCK;
  if (begin >= params.N) {
    return;
  }
  var sum = 0.0;
  for (var i = 0u; i < BLOCK / WG; i++) {
    let n = begin + i * WG + lane;
    let value = select(0.0, x[min(n, params.N - 1u)], n < params.N);
    sum += value * value;
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    sums[params.first + b] = partial[0];
  }
}
