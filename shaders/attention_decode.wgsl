// Lets one new query of each sequence attend to the sequence's rows of a cache, its own among them.
//
//   y[n, h] = sum over j of softmax over j of (scale * q[n, h] . key(j)) * value(j)
//   with j from 0 to count - 1, row(j) = prefix + j where j < ahead, else own + j - ahead, g = floor(h * G / H),
//   key(j) the channels of head g in row(j) of kv, value(j) those behind all keys of the row, W = 2 G C;
//   (count, prefix, ahead, own) = plan[n]
//
// q      [N, H, C]         C at most 256
// kv     [M, W]    f32 f16  keys of G heads, then their values
// plan   [N, 4]    u32     rows below M; a count of 0 gives y = 0
// y      [N, H, C]  output
//
// scalar    scale                    factor of the scores
// dispatch  N * H                    one workgroup per head of a query
// split     N * H
// flops     4 * N * M * H * C        of sequences that see the whole cache
// bytes     4 * (2 * N * H * C + 4 * N) + STORED * M * W
// source    Dao et al. 2022, algorithm 1; online softmax of Milakov and Gimelshein 2018
//
// A tile is 64 keys, counted from the sequence's first, so a result depends neither on the sequences beside it nor on where
// its rows lie. A thread scores one key; then it owns every 64th channel and adds up the values, the keys in their order.

const WG = 64u;
const CHANNELS = 256u;
// Below every score, and far enough from the largest float that a difference of two cannot overflow.
const NONE = -1e30;

var<workgroup> query: array<f32, CHANNELS>; // scaled
var<workgroup> scores: array<f32, WG>;
var<workgroup> weights: array<f32, WG>; // exp(score - top)

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let H = params.H;
  let C = params.C;
  let unit = wg.y * groups.x + wg.x;
  if (unit >= params.N * H) {
    return;
  }
  let n = unit / H;
  let half = params.W / 2u;
  let first = ((unit % H) * (half / C)) / H * C;
  let count = plan[4u * n];
  let prefix = plan[4u * n + 1u];
  let ahead = plan[4u * n + 2u];
  // Added to the number of a key, it gives the row of one that is not in the prefix.
  let own = plan[4u * n + 3u] - ahead;
  for (var c = lane; c < C; c += WG) {
    query[c] = params.scale * q[unit * C + c];
  }
  workgroupBarrier();

  let whole = C / 4u * 4u;
  var top = NONE;
  var total = 0.0;
  var sum0 = 0.0;
  var sum1 = 0.0;
  var sum2 = 0.0;
  var sum3 = 0.0;
  for (var key = 0u; key < count; key += WG) {
    let keys = min(WG, count - key);
    var score = NONE;
    if (lane < keys) {
      let j = key + lane;
      let row = select(own + j, prefix + j, j < ahead);
      var sums = vec4f();
      for (var c = 0u; c < whole; c += 4u) {
        let keys4 = stored4_at(row, first + c);
        sums += vec4f(query[c], query[c + 1u], query[c + 2u], query[c + 3u]) * keys4;
      }
      score = (sums.x + sums.y) + (sums.z + sums.w);
      for (var c = whole; c < C; c++) {
        score += query[c] * stored_at(row, first + c);
      }
    }
    scores[lane] = score;
    workgroupBarrier();
    let before = top;
    for (var s = 0u; s < keys; s++) {
      top = max(top, scores[s]);
    }
    weights[lane] = exp(score - top);
    workgroupBarrier();
    let keep = exp(before - top);
    total *= keep;
    sum0 *= keep;
    sum1 *= keep;
    sum2 *= keep;
    sum3 *= keep;
    for (var s = 0u; s < keys; s++) {
      let j = key + s;
      let row = select(own + j, prefix + j, j < ahead);
      let weight = weights[s];
      let column = half + first + lane;
      total += weight;
      if (lane < C) {
        sum0 += weight * stored_at(row, column);
      }
      if (lane + WG < C) {
        sum1 += weight * stored_at(row, column + WG);
      }
      if (lane + 2u * WG < C) {
        sum2 += weight * stored_at(row, column + 2u * WG);
      }
      if (lane + 3u * WG < C) {
        sum3 += weight * stored_at(row, column + 3u * WG);
      }
    }
  }

  let share = select(0.0, 1.0 / total, count > 0u);
  if (lane < C) {
    y[unit * C + lane] = sum0 * share;
  }
  if (lane + WG < C) {
    y[unit * C + lane + WG] = sum1 * share;
  }
  if (lane + 2u * WG < C) {
    y[unit * C + lane + 2u * WG] = sum2 * share;
  }
  if (lane + 3u * WG < C) {
    y[unit * C + lane + 3u * WG] = sum3 * share;
  }
}
