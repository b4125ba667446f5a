// Adds up a gradient over the rows: the gradient of a bias.
//
//   dbias[o] = sum over n of dy[n, o]
//
// dy     [N, O]
// dbias  [O]  output
//
// dispatch  ceil(O / COLUMNS)   one workgroup per 32 columns, eight threads for each
// split     O by 16
// flops     N * O
// bytes     4 * (N * O + O)
// source    definition

const COLUMNS = 32u;
const ROWS = 8u;

var<workgroup> partial: array<f32, COLUMNS * ROWS>;

// What the eight threads of column x have stored, added up.
fn total(x: u32) -> f32 {
  return ((partial[x] + partial[COLUMNS + x]) + (partial[2u * COLUMNS + x] + partial[3u * COLUMNS + x])) + ((partial[4u * COLUMNS + x] + partial[5u * COLUMNS + x]) + (partial[6u * COLUMNS + x] + partial[7u * COLUMNS + x]));
}

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let o = (wg.y * groups.x + wg.x) * COLUMNS + local.x;
  let column = min(o, params.O - 1u);
  var sum = 0.0;
  for (var n = local.y; n < params.N; n += ROWS) {
    sum += dy[n * params.O + column];
  }
  partial[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  if (local.y == 0u && o < params.O) {
    dbias[o] = total(local.x);
  }
}
