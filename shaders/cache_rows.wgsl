// Writes keys and values as rows of a cache, in the cache's type.
//
//   kv[rows[n], d] = k[n, d] for d below W / 2, else v[n, d - W / 2]
//
// kv    [M, W]      f32 f16  in place   keys, then values; other rows keep what they hold
// k     [N, W / 2]
// v     [N, W / 2]
// rows  [N]         u32                 each once; rows from M on are left out
//
// dispatch  ceil(N * W / 2 / WG)   one thread per two values
// split     N
// flops     0
// bytes     (4 + STORED) * N * W + 4 * N
// source    definition

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let half = params.W / 2u;
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N * half) {
    return;
  }
  let n = i / half;
  let row = rows[n];
  if (row >= params.M) {
    return;
  }
  // A row of two halves is a whole number of pairs; one pair may have a value of each.
  let d = 2u * (i % half);
  let first = n * half;
  var pair: array<f32, 2>;
  for (var j = 0u; j < 2u; j++) {
    if (d + j < half) {
      pair[j] = k[first + d + j];
    } else {
      pair[j] = v[first + d + j - half];
    }
  }
  store2_at(row, d, pair[0], pair[1]);
}
