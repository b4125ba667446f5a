// Computes mean and variance of every column, in two passes.
//
//   mean[d]     = (sum over n of x[n, d]) / N
//   variance[d] = (sum over n of (x[n, d] - mean[d])^2) / N
//
// x         [N, D]
// mean      [D]  output
// variance  [D]  output
//
// dispatch  ceil(D / COLUMNS)   one workgroup per 32 columns, eight threads for each
// split     D by 16
// flops     4 * N * D
// bytes     4 * (N * D + 2 * D)
// source    Ioffe and Szegedy 2015, algorithm 1

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
  let d = (wg.y * groups.x + wg.x) * COLUMNS + local.x;
  let column = min(d, params.D - 1u);
  var sum = 0.0;
  for (var n = local.y; n < params.N; n += ROWS) {
    sum += x[n * params.D + column];
  }
  partial[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  let middle = total(local.x) / f32(params.N);
  // Everybody has read the sums before the memory is used again.
  workgroupBarrier();
  var squares = 0.0;
  for (var n = local.y; n < params.N; n += ROWS) {
    let off = x[n * params.D + column] - middle;
    squares += off * off;
  }
  partial[local.y * COLUMNS + local.x] = squares;
  workgroupBarrier();
  if (local.y == 0u && d < params.D) {
    mean[d] = middle;
    variance[d] = total(local.x) / f32(params.N);
  }
}
