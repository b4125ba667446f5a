// Takes a gradient through attention to its keys and values, in blocks of keys.
//
//   p = exp(scale * q[n, h] . k[m, g] - stats[n, h, 0])
//   dv[m, g] = sum over n and h of p * dy[n, h]
//   dk[m, g] = scale * sum over n and h of p * (dy[n, h] . v[m, g] - stats[n, h, 1]) * q[n, h]
//   with m = first + i for i from 0 to count - 1, n from m to stop - 1, h from g * H / G to (g + 1) * H / G - 1,
//   (first, count, stop) = plan[b]
//
// q      [N, H, C]         C at most 256
// k      [N, G, C]
// v      [N, G, C]
// plan   [B, 3]     u32    blocks of at most 64 keys of one sequence; rows from stop on see none of them
// dy     [N, H, C]
// stats  [N, H, 2]         of attention_delta
// dk     [N, G, C]  output, rows of no block stay as they are
// dv     [N, G, C]  output, rows of no block stay as they are
//
// scalar    scale            factor of the scores
// dispatch  G * B * PARTS    one workgroup per 16 keys of a head
// split     G * B
// flops     4 * N * N * H * C        of one sequence
// bytes     4 * (2 * N * H * C + 4 * N * G * C + 3 * B + 2 * N * H)
// source    Dao et al. 2022, algorithm 4
//
// A prefix that several sequences share lies right before them, so its keys are seen up to the end of the last one. The query
// heads of a group are looped over, so that nothing is added by two workgroups. Scores are computed again, 16 keys x 16 queries
// at a time, four of them a thread; then a thread owns four channels of four, eight or sixteen keys.

const KEYS = 16u;
// Workgroups of a block.
const PARTS = 4u;
const QUERIES = 16u;
const WG = 64u;

var<workgroup> shares: array<vec4f, QUERIES * 4u>; // [query, block of four keys]: p
var<workgroup> slopes: array<vec4f, QUERIES * 4u>; // [query, block of four keys]: scale * p * (dy . v - delta)

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let H = params.H;
  let C = params.C;
  let G = params.G;
  let slots = params.B * PARTS;
  let unit = wg.y * groups.x + wg.x;
  if (unit >= G * slots) {
    return;
  }
  let g = unit / slots;
  let slot = unit % slots;
  let b = slot / PARTS * 3u;
  let skipped = slot % PARTS * KEYS;
  let count = plan[b + 1u];
  if (skipped >= count) {
    return;
  }
  let start = plan[b] + skipped;
  let rows = min(KEYS, count - skipped);
  let stop = plan[b + 2u];

  // While scoring, this thread has query number s of the tile and keys 4 * kb to 4 * kb + 3.
  let s = lane / 4u;
  let kb = lane % 4u;
  let i = 4u * kb + vec4u(0u, 1u, 2u, 3u);
  let key = ((start + min(i, vec4u(rows - 1u))) * G + g) * C;

  // While summing, it has the channels c to c + 3 and the keys of one, two or four blocks from number quad on.
  let share = select(select(64u, 32u, C <= 128u), 16u, C <= 64u);
  let blocks = share / 16u;
  let quad = (lane / share) * blocks;
  let c = (lane % share) * 4u;
  let channels = min(c + vec4u(0u, 1u, 2u, 3u), vec4u(C - 1u));
  var dks: array<vec4f, 16>;
  var dvs: array<vec4f, 16>;

  for (var h = g * H / G; h < (g + 1u) * H / G; h++) {
    for (var first = start; first < stop; first += QUERIES) {
      let at = min(first + s, stop - 1u) * H + h;
      let lse = stats[2u * at];
      var score = vec4f();
      var slope = vec4f();
      for (var d = 0u; d < C; d++) {
        let here = key + d;
        score += q[at * C + d] * vec4f(k[here.x], k[here.y], k[here.z], k[here.w]);
        slope += dy[at * C + d] * vec4f(v[here.x], v[here.y], v[here.z], v[here.w]);
      }
      let seen = (start + i <= vec4u(first + s)) & (i < vec4u(rows)) & vec4<bool>(first + s < stop);
      // A score that is not seen may be far above the sum of those that are: it must not reach exp.
      let p = select(vec4f(), exp(select(vec4f(lse), params.scale * score, seen) - lse), seen);
      shares[s * 4u + kb] = p;
      slopes[s * 4u + kb] = params.scale * p * (slope - stats[2u * at + 1u]);
      workgroupBarrier();
      let queries = min(QUERIES, stop - first);
      for (var u = 0u; u < queries; u++) {
        let here = vec4u(((first + u) * H + h) * C) + channels;
        let query = vec4f(q[here.x], q[here.y], q[here.z], q[here.w]);
        let change = vec4f(dy[here.x], dy[here.y], dy[here.z], dy[here.w]);
        for (var t = 0u; t < 4u; t++) {
          if (t < blocks) {
            let share4 = shares[u * 4u + quad + t];
            let slope4 = slopes[u * 4u + quad + t];
            for (var x = 0u; x < 4u; x++) {
              dks[4u * t + x] += slope4[x] * query;
              dvs[4u * t + x] += share4[x] * change;
            }
          }
        }
      }
      workgroupBarrier();
    }
  }
  for (var t = 0u; t < 4u * blocks; t++) {
    let m = quad * 4u + t;
    if (m < rows) {
      for (var x = 0u; x < 4u; x++) {
        if (c + x < C) {
          dk[((start + m) * G + g) * C + c + x] = dks[t][x];
          dv[((start + m) * G + g) * C + c + x] = dvs[t][x];
        }
      }
    }
  }
}
