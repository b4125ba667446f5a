// Applies a linear map without bias to one to eight rows.
//
//   y[n, o] = sum over d of x[n, d] * weight[o, d]
//
// x       [N, D]
// weight  [O, D]  f32 f16 bf16 q8_0
// y       [N, O]  output
//
// dispatch  ceil(O / OUTPUTS) * ceil(N / ROWS)   one workgroup per four outputs of eight rows
// split     O by 8
// flops     2 * N * D * O
// bytes     4 * (N * D + N * O) + STORED * O * D
// source    definition
//
// Reading the weights is the whole cost: each is read once for all rows, and neighbouring threads read neighbours.

const OUTPUTS = 4u;
const ROWS = 8u;
const WG = 32u;

// [ROWS, WG]: the sums of every thread, four outputs a vector.
var<workgroup> partial: array<vec4f, ROWS * WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (params.O + OUTPUTS - 1u) / OUTPUTS;
  let group = wg.y * groups.x + wg.x;
  let o = (group % across) * OUTPUTS;
  let n = (group / across) * ROWS;
  if (n >= params.N) {
    return;
  }
  let D = params.D;
  let rows = min(ROWS, params.N - n);
  let last = params.N - 1u;
  let row0 = n * D;
  let row1 = min(n + 1u, last) * D;
  let row2 = min(n + 2u, last) * D;
  let row3 = min(n + 3u, last) * D;
  let row4 = min(n + 4u, last) * D;
  let row5 = min(n + 5u, last) * D;
  let row6 = min(n + 6u, last) * D;
  let row7 = min(n + 7u, last) * D;
  let end = params.O - 1u;
  let o1 = min(o + 1u, end);
  let o2 = min(o + 2u, end);
  let o3 = min(o + 3u, end);
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  var sum4 = vec4f();
  var sum5 = vec4f();
  var sum6 = vec4f();
  var sum7 = vec4f();
  for (var d = lane; d < D; d += WG) {
    let w = vec4f(stored_at(o, d), stored_at(o1, d), stored_at(o2, d), stored_at(o3, d));
    sum0 += x[row0 + d] * w;
    if (rows > 1u) {
      sum1 += x[row1 + d] * w;
      sum2 += x[row2 + d] * w;
      sum3 += x[row3 + d] * w;
    }
    if (rows > 4u) {
      sum4 += x[row4 + d] * w;
      sum5 += x[row5 + d] * w;
      sum6 += x[row6 + d] * w;
      sum7 += x[row7 + d] * w;
    }
  }
  partial[lane] = sum0;
  partial[1u * WG + lane] = sum1;
  partial[2u * WG + lane] = sum2;
  partial[3u * WG + lane] = sum3;
  partial[4u * WG + lane] = sum4;
  partial[5u * WG + lane] = sum5;
  partial[6u * WG + lane] = sum6;
  partial[7u * WG + lane] = sum7;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      for (var row = 0u; row < rows; row++) {
        partial[row * WG + lane] += partial[row * WG + lane + half];
      }
    }
    workgroupBarrier();
  }
  let row = lane / OUTPUTS;
  let output = lane % OUTPUTS;
  if (row < rows && o + output < params.O) {
    y[(n + row) * params.O + o + output] = partial[row * WG][output];
  }
}
