// Takes a gradient through batch normalisation with the statistics of the batch.
//
//   h[n, d]    = (x[n, d] - mean[d]) * r[d],   r[d] = 1 / sqrt(variance[d] + eps)
//   dweight[d] = sum over n of dy[n, d] * h[n, d]
//   dbias[d]   = sum over n of dy[n, d]
//   dx[n, d]   = weight[d] * r[d] * (dy[n, d] - dbias[d] / N - h[n, d] * dweight[d] / N)
//
// x         [N, D]
// mean      [D]
// variance  [D]
// weight    [D]
// dy        [N, D]
// dx        [N, D]  output
// dweight   [D]     output
// dbias     [D]     output
//
// scalar    eps  added to the variance
// dispatch  ceil(D / COLUMNS)   one workgroup per 32 columns, eight threads for each
// split     D by 16
// flops     12 * N * D
// bytes     4 * (3 * N * D + 5 * D)
// source    Ioffe and Szegedy 2015, section 3

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
  let middle = mean[column];
  let rstd = 1.0 / sqrt(variance[column] + params.eps);
  var sum = 0.0;
  var product = 0.0;
  for (var n = local.y; n < params.N; n += ROWS) {
    let at = n * params.D + column;
    sum += dy[at];
    product += dy[at] * ((x[at] - middle) * rstd);
  }
  partial[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  sum = total(local.x);
  // Everybody has read the sums before the memory is used again.
  workgroupBarrier();
  partial[local.y * COLUMNS + local.x] = product;
  workgroupBarrier();
  product = total(local.x);
  if (d >= params.D) {
    return;
  }
  if (local.y == 0u) {
    dweight[d] = product;
    dbias[d] = sum;
  }
  let rows = f32(params.N);
  let factor = weight[d] * rstd;
  for (var n = local.y; n < params.N; n += ROWS) {
    let at = n * params.D + d;
    dx[at] = factor * (dy[at] - sum / rows - (x[at] - middle) * rstd * (product / rows));
  }
}
