// Takes a gradient through attention to its queries, in the planned blocks of the forward pass.
//
//   p = exp(scale * q[n, h] . k[row(j), g] - stats[n, h, 0])
//   dq[n, h] = scale * sum over j of p * (dy[n, h] . v[row(j), g] - stats[n, h, 1]) * k[row(j), g]
//   with n, j, g and row(j) as in attention, whose queries and keys are the same N rows here
//
// q      [N, H, C]         C at most 256
// k      [N, G, C]
// v      [N, G, C]
// plan   [B, 6]     u32    blocks of attention
// dy     [N, H, C]
// stats  [N, H, 2]         of attention_delta
// dq     [N, H, C]  output, rows of no block stay as they are
//
// scalar    scale            factor of the scores
// dispatch  H * B * PARTS    one workgroup per 16 queries of a head
// split     H * B
// flops     3 * N * N * H * C        of one sequence
// bytes     4 * (3 * N * H * C + 2 * N * G * C + 6 * B + 2 * N * H)
// source    Dao et al. 2022, algorithm 4
//
// Scores are computed again, 16 queries x 16 keys at a time, four of them a thread. Then a thread owns four channels of four,
// eight or sixteen queries, as in attention.

const QUERIES = 16u;
// Workgroups of a block.
const PARTS = 4u;
const KEYS = 16u;
const WG = 64u;

var<workgroup> slopes: array<vec4f, KEYS * 4u>; // [key, block of four queries]: scale * p * (dy . v - delta)

// The row of key number j.
fn row(j: u32, prefix: u32, ahead: u32, own: u32) -> u32 {
  return select(own + j, prefix + j, j < ahead);
}

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
  if (unit >= H * slots) {
    return;
  }
  let h = unit / slots;
  let g = (h * G) / H;
  // The last queries see the most keys, so they go first.
  let slot = slots - 1u - unit % slots;
  let b = slot / PARTS * 6u;
  let skipped = slot % PARTS * QUERIES;
  let count = plan[b + 1u];
  if (skipped >= count) {
    return;
  }
  let start = plan[b] + skipped;
  let rows = min(QUERIES, count - skipped);
  let prefix = plan[b + 2u];
  let ahead = plan[b + 3u];
  // Added to the number of a key, it gives the row of one that is not in the prefix.
  let own = plan[b + 4u] - ahead;
  // Number of the key that the first query stands at, and the first that no query sees.
  let at = ahead + plan[b + 5u] + skipped;
  let end = at + rows;

  // While scoring, this thread has key number s of the tile and queries 4 * qb to 4 * qb + 3.
  let s = lane / 4u;
  let qb = lane % 4u;
  let i = 4u * qb + vec4u(0u, 1u, 2u, 3u);
  let query = (start + min(i, vec4u(rows - 1u))) * H + h;
  let lse = vec4f(stats[2u * query.x], stats[2u * query.y], stats[2u * query.z], stats[2u * query.w]);
  let delta =
    vec4f(stats[2u * query.x + 1u], stats[2u * query.y + 1u], stats[2u * query.z + 1u], stats[2u * query.w + 1u]);

  // While summing, it has the channels c to c + 3 and the queries of one, two or four blocks from number quad on.
  let share = select(select(64u, 32u, C <= 128u), 16u, C <= 64u);
  let blocks = share / 16u;
  let quad = (lane / share) * blocks;
  let c = (lane % share) * 4u;
  let channels = min(c + vec4u(0u, 1u, 2u, 3u), vec4u(C - 1u));
  var sums: array<vec4f, 16>;

  for (var key = 0u; key < end; key += KEYS) {
    let m = (row(min(key + s, end - 1u), prefix, ahead, own) * G + g) * C;
    var score = vec4f();
    var slope = vec4f();
    for (var d = 0u; d < C; d++) {
      let place = query * C + d;
      score += k[m + d] * vec4f(q[place.x], q[place.y], q[place.z], q[place.w]);
      slope += v[m + d] * vec4f(dy[place.x], dy[place.y], dy[place.z], dy[place.w]);
    }
    let seen = (vec4u(key + s) <= at + i) & (i < vec4u(rows));
    // A score that is not seen may be far above the sum of those that are: it must not reach exp.
    let p = exp(select(lse, params.scale * score, seen) - lse);
    slopes[s * 4u + qb] = select(vec4f(), params.scale * p * (slope - delta), seen);
    workgroupBarrier();
    let keys = min(KEYS, end - key);
    for (var u = 0u; u < keys; u++) {
      let first = (row(key + u, prefix, ahead, own) * G + g) * C;
      let value = vec4f(k[first + channels.x], k[first + channels.y], k[first + channels.z], k[first + channels.w]);
      for (var t = 0u; t < 4u; t++) {
        if (t < blocks) {
          let slope4 = slopes[u * 4u + quad + t];
          sums[4u * t] += slope4.x * value;
          sums[4u * t + 1u] += slope4.y * value;
          sums[4u * t + 2u] += slope4.z * value;
          sums[4u * t + 3u] += slope4.w * value;
        }
      }
    }
    workgroupBarrier();
  }
  for (var t = 0u; t < 4u * blocks; t++) {
    let n = quad * 4u + t;
    if (n < rows) {
      for (var x = 0u; x < 4u; x++) {
        if (c + x < C) {
          dq[((start + n) * H + h) * C + c + x] = sums[t][x];
        }
      }
    }
  }
}
