// Folds a block of logits into the running softmax of its rows, so that no row of all logits ever exists.
//
//   z[r, b] = scale * x[r, b] is the logit of vocabulary entry first + b; over all entries folded so far
//   top[r] = largest z;  total[r] = sum of exp(z - top[r]);  spread[r] = sum of exp(z - top[r]) * (z - top[r])
//   hit[r] = z of entry wanted[r], once it has come
//
// x       [R, B]
// wanted  [R]     u32
// top     [R]     in place, -1e30 before the first block
// total   [R]     in place, 0 before the first block
// spread  [R]     in place, 0 before the first block
// hit     [R]     in place
//
// scalar    first u32   vocabulary entry of column 0
// scalar    scale       1 / temperature
// dispatch  R           one workgroup per row
// split     R
// flops     8 * R * B
// bytes     4 * (2 * R * B + 9 * R)
// source    Milakov and Gimelshein 2018
//
// The log-probability of the wanted is hit - top - log(total), the entropy log(total) - spread / total.

const WG = 128u;

var<workgroup> largest: array<f32, WG>;
var<workgroup> sums: array<vec2f, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let r = wg.y * groups.x + wg.x;
  if (r >= params.R) {
    return;
  }
  let B = params.B;
  let row = r * B;
  let before = top[r];
  var most = before;
  for (var b = lane; b < B; b += WG) {
    most = max(most, params.scale * x[row + b]);
  }
  largest[lane] = most;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      largest[lane] = max(largest[lane], largest[lane + half]);
    }
    workgroupBarrier();
  }
  let after = largest[0];
  var sum = vec2f();
  for (var b = lane; b < B; b += WG) {
    let z = params.scale * x[row + b] - after;
    let e = exp(z);
    sum += vec2f(e, e * z);
  }
  sums[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      sums[lane] += sums[lane + half];
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    // What the sums so far are worth relative to the new largest logit.
    let shift = before - after;
    let worth = exp(shift);
    spread[r] = worth * (spread[r] + total[r] * shift) + sums[0].y;
    total[r] = worth * total[r] + sums[0].x;
    top[r] = after;
    let b = wanted[r] - params.first;
    if (wanted[r] >= params.first && b < B) {
      hit[r] = params.scale * x[row + b];
    }
  }
}
