// Lets queries attend to their own sequence up to themselves, in planned blocks, with grouped key and value heads.
//
//   y[n, h] = sum over j of softmax over j of (scale * q[n, h] . k[row(j), g]) * v[row(j), g]
//   lse[n, h] = log of the sum over j of exp(scale * q[n, h] . k[row(j), g])
//   with n = first + i for i from 0 to count - 1, j from 0 to ahead + position + i, g = floor(h * G / H),
//   row(j) = prefix + j where j < ahead, else own + j - ahead; (first, count, prefix, ahead, own, position) = plan[b]
//
// q      [Q, H, C]         C at most 256
// k      [N, G, C]
// v      [N, G, C]
// plan   [B, 6]     u32    blocks; count: 1 to 64, rows below Q, keys below N
// y      [Q, H, C]  output, rows of no block stay as they are
// lse    [Q, H]     output, natural logarithm
//
// scalar    scale                    factor of the scores
// dispatch  H * B * PARTS            one workgroup per 16 queries of a head
// split     H * B
// flops     2 * Q * N * H * C        of one sequence
// bytes     4 * (2 * Q * H * C + 2 * N * G * C + 6 * B + Q * H)
// source    Dao et al. 2022, algorithm 1; online softmax of Milakov and Gimelshein 2018
//
// A block is up to 64 queries that follow each other in one sequence. Its keys are a prefix, which several sequences may
// share, and then the sequence's own. Tiles of keys start at the sequence's first key, so a result depends neither on
// the sequences beside it nor on where its keys lie.
//
// Scores exist for 16 queries x 64 keys at a time. A thread computes 4 x 4 of them; then it owns four channels of four,
// eight or sixteen queries, whichever occupies all 64 threads, and takes the values from memory in place: nobody else
// of its query group needs them. The sum of the weights falls out of the same loop, so only the maximum is reduced.

const QUERIES = 16u;
// Workgroups of a block.
const PARTS = 4u;
const KEYS = 64u;
const DEPTH = 32u;
const WG = 64u;
// Vectors of four keys per channel; one more than 16 keeps the memory banks apart.
const STRIDE = 17u;
// Below every score, and far enough from the largest float that a difference of two cannot overflow.
const NONE = -1e30;

var<workgroup> q_tile: array<vec4f, DEPTH * 4u>; // [channel, block of four queries]
var<workgroup> k_tile: array<vec4f, DEPTH * STRIDE>; // [channel, block of four keys]
var<workgroup> p_tile: array<vec4f, KEYS * 4u>; // [key, block of four queries]: exp(score - top)
var<workgroup> tops: array<vec4f, 64>; // [block of four keys, block of four queries]
var<workgroup> kept: array<vec4f, 4>; // [block of four queries]: what older sums are multiplied by

// The row of key number j.
fn row(j: u32, prefix: u32, ahead: u32, own: u32) -> u32 {
  return select(own + j, prefix + j, j < ahead);
}

// Finishes channels c to c + 3 of query n, if it lies before the end.
fn store(n: u32, end: u32, h: u32, c: u32, sum: vec4f, total: f32) {
  if (n < end) {
    for (var i = 0u; i < 4u; i++) {
      if (c + i < params.C) {
        y[(n * params.H + h) * params.C + c + i] = sum[i] / total;
      }
    }
  }
}

fn store_lse(n: u32, end: u32, h: u32, top: vec4f, total: vec4f) {
  for (var i = 0u; i < 4u; i++) {
    if (n + i < end) {
      lse[(n + i) * params.H + h] = top[i] + log(total[i]);
    }
  }
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
  let stop = plan[b] + min(skipped + QUERIES, count);
  let last = stop - 1u;
  let prefix = plan[b + 2u];
  let ahead = plan[b + 3u];
  // Added to the number of a key, it gives the row of one that is not in the prefix.
  let own = plan[b + 4u] - ahead;
  // Number of the key that the first query stands at, and the first that no query sees.
  let at = ahead + plan[b + 5u] + skipped;
  let end = at + stop - start;

  // While scoring, this thread has the queries 4 * qb to 4 * qb + 3 and the keys 4 * kb to 4 * kb + 3 of the tile.
  let qb = lane / 16u;
  let kb = lane % 16u;
  let query = at + 4u * qb + vec4u(0u, 1u, 2u, 3u);
  var top = vec4f(NONE);

  // While summing, it has the channels c to c + 3 and the queries of one, two or four blocks from number quad on.
  let share = select(select(64u, 32u, C <= 128u), 16u, C <= 64u);
  let blocks = share / 16u;
  let quad = (lane / share) * blocks;
  let c = (lane % share) * 4u;
  let channels = min(c + vec4u(0u, 1u, 2u, 3u), vec4u(C - 1u));
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  var sum4 = vec4f();
  var sum5 = vec4f();
  var sum6 = vec4f();
  var sum7 = vec4f();
  var sum8 = vec4f();
  var sum9 = vec4f();
  var sum10 = vec4f();
  var sum11 = vec4f();
  var sum12 = vec4f();
  var sum13 = vec4f();
  var sum14 = vec4f();
  var sum15 = vec4f();
  var total0 = vec4f();
  var total1 = vec4f();
  var total2 = vec4f();
  var total3 = vec4f();

  for (var key = 0u; key < end; key += KEYS) {
    var score0 = vec4f(); // of four queries with key 4 * kb
    var score1 = vec4f();
    var score2 = vec4f();
    var score3 = vec4f();
    for (var channel = 0u; channel < C; channel += DEPTH) {
      for (var i = lane; i < DEPTH * 4u; i += WG) {
        let depth = i % DEPTH;
        let slot = i / DEPTH;
        let n = start + 4u * slot;
        let d = min(channel + depth, C - 1u);
        q_tile[depth * 4u + slot] = params.scale * vec4f(
          q[(min(n, last) * H + h) * C + d],
          q[(min(n + 1u, last) * H + h) * C + d],
          q[(min(n + 2u, last) * H + h) * C + d],
          q[(min(n + 3u, last) * H + h) * C + d],
        );
      }
      for (var i = lane; i < DEPTH * 16u; i += WG) {
        let depth = i % DEPTH;
        let slot = i / DEPTH;
        let j = key + 4u * slot;
        let d = min(channel + depth, C - 1u);
        k_tile[depth * STRIDE + slot] = vec4f(
          k[(row(min(j, end - 1u), prefix, ahead, own) * G + g) * C + d],
          k[(row(min(j + 1u, end - 1u), prefix, ahead, own) * G + g) * C + d],
          k[(row(min(j + 2u, end - 1u), prefix, ahead, own) * G + g) * C + d],
          k[(row(min(j + 3u, end - 1u), prefix, ahead, own) * G + g) * C + d],
        );
      }
      workgroupBarrier();
      let depths = min(DEPTH, C - channel);
      for (var d = 0u; d < depths; d++) {
        let a = q_tile[d * 4u + qb];
        let b = k_tile[d * STRIDE + kb];
        score0 += a * b.x;
        score1 += a * b.y;
        score2 += a * b.z;
        score3 += a * b.w;
      }
      workgroupBarrier();
    }

    let m = vec4u(key + 4u * kb);
    let seen0 = m <= query;
    let seen1 = m + 1u <= query;
    let seen2 = m + 2u <= query;
    let seen3 = m + 3u <= query;
    score0 = select(vec4f(NONE), score0, seen0);
    score1 = select(vec4f(NONE), score1, seen1);
    score2 = select(vec4f(NONE), score2, seen2);
    score3 = select(vec4f(NONE), score3, seen3);
    tops[kb * 4u + qb] = max(max(score0, score1), max(score2, score3));
    workgroupBarrier();
    let before = top;
    for (var i = 0u; i < 16u; i++) {
      top = max(top, tops[i * 4u + qb]);
    }
    if (kb == 0u) {
      kept[qb] = exp(before - top);
    }
    p_tile[kb * 16u + qb] = select(vec4f(), exp(score0 - top), seen0);
    p_tile[kb * 16u + 4u + qb] = select(vec4f(), exp(score1 - top), seen1);
    p_tile[kb * 16u + 8u + qb] = select(vec4f(), exp(score2 - top), seen2);
    p_tile[kb * 16u + 12u + qb] = select(vec4f(), exp(score3 - top), seen3);
    workgroupBarrier();

    let keep0 = kept[quad];
    total0 *= keep0;
    sum0 *= keep0.x;
    sum1 *= keep0.y;
    sum2 *= keep0.z;
    sum3 *= keep0.w;
    if (blocks > 1u) {
      let keep1 = kept[quad + 1u];
      total1 *= keep1;
      sum4 *= keep1.x;
      sum5 *= keep1.y;
      sum6 *= keep1.z;
      sum7 *= keep1.w;
    }
    if (blocks > 2u) {
      let keep2 = kept[quad + 2u];
      total2 *= keep2;
      sum8 *= keep2.x;
      sum9 *= keep2.y;
      sum10 *= keep2.z;
      sum11 *= keep2.w;
      let keep3 = kept[quad + 3u];
      total3 *= keep3;
      sum12 *= keep3.x;
      sum13 *= keep3.y;
      sum14 *= keep3.z;
      sum15 *= keep3.w;
    }
    let keys = min(KEYS, end - key);
    for (var s = 0u; s < keys; s++) {
      let first = (row(key + s, prefix, ahead, own) * G + g) * C;
      let value = vec4f(v[first + channels.x], v[first + channels.y], v[first + channels.z], v[first + channels.w]);
      let p0 = p_tile[s * 4u + quad];
      total0 += p0;
      sum0 += p0.x * value;
      sum1 += p0.y * value;
      sum2 += p0.z * value;
      sum3 += p0.w * value;
      if (blocks > 1u) {
        let p1 = p_tile[s * 4u + quad + 1u];
        total1 += p1;
        sum4 += p1.x * value;
        sum5 += p1.y * value;
        sum6 += p1.z * value;
        sum7 += p1.w * value;
      }
      if (blocks > 2u) {
        let p2 = p_tile[s * 4u + quad + 2u];
        total2 += p2;
        sum8 += p2.x * value;
        sum9 += p2.y * value;
        sum10 += p2.z * value;
        sum11 += p2.w * value;
        let p3 = p_tile[s * 4u + quad + 3u];
        total3 += p3;
        sum12 += p3.x * value;
        sum13 += p3.y * value;
        sum14 += p3.z * value;
        sum15 += p3.w * value;
      }
    }
  }

  let n = start + quad * 4u;
  store(n, stop, h, c, sum0, total0.x);
  store(n + 1u, stop, h, c, sum1, total0.y);
  store(n + 2u, stop, h, c, sum2, total0.z);
  store(n + 3u, stop, h, c, sum3, total0.w);
  if (blocks > 1u) {
    store(n + 4u, stop, h, c, sum4, total1.x);
    store(n + 5u, stop, h, c, sum5, total1.y);
    store(n + 6u, stop, h, c, sum6, total1.z);
    store(n + 7u, stop, h, c, sum7, total1.w);
  }
  if (blocks > 2u) {
    store(n + 8u, stop, h, c, sum8, total2.x);
    store(n + 9u, stop, h, c, sum9, total2.y);
    store(n + 10u, stop, h, c, sum10, total2.z);
    store(n + 11u, stop, h, c, sum11, total2.w);
    store(n + 12u, stop, h, c, sum12, total3.x);
    store(n + 13u, stop, h, c, sum13, total3.y);
    store(n + 14u, stop, h, c, sum14, total3.z);
    store(n + 15u, stop, h, c, sum15, total3.w);
  }

  // The maxima are with the threads that scored, the totals with those that summed.
  if (kb == 0u) {
    tops[qb] = top;
  }
  workgroupBarrier();
  if (lane % share == 0u) {
    store_lse(n, stop, h, tops[quad], total0);
    if (blocks > 1u) {
      store_lse(n + 4u, stop, h, tops[quad + 1u], total1);
    }
    if (blocks > 2u) {
      store_lse(n + 8u, stop, h, tops[quad + 2u], total2);
      store_lse(n + 12u, stop, h, tops[quad + 3u], total3);
    }
  }
}
