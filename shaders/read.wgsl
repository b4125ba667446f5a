// Sums rows of 4096 numbers: the bound of reading memory for benchmarks.
//
//   sums[b] = sum over i of x[b, i]
//
// x     [B, 4096]  f32 as vec4f
// sums  [B]  output
//
// dispatch  B   one workgroup per row
// split     B
// flops     4096 * B
// bytes     16384 * B + 4 * B
// source    definition

const ROW = 1024u;
const WG = 256u;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let b = wg.y * groups.x + wg.x;
  if (b >= params.B) {
    return;
  }
  var sum = vec4f();
  for (var i = lane; i < ROW; i += WG) {
    sum += x[b * ROW + i];
  }
  partial[lane] = dot(sum, vec4f(1.0));
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    sums[b] = partial[0];
  }
}
