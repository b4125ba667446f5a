// Moves the running statistics of a batch norm towards those of a batch.
//
//   running_mean[d]     = (1 - momentum) * running_mean[d] + momentum * mean[d]
//   running_variance[d] = (1 - momentum) * running_variance[d] + momentum * variance[d] * rows / (rows - 1)
//
// mean              [D]
// variance          [D]  of the batch, divided by its rows
// running_mean      [D]  in place
// running_variance  [D]  in place
//
// scalar    momentum
// scalar    rows u32   of the batch, 2 or more
// dispatch  ceil(D / WG)   one thread per column
// split     D by 4
// flops     8 * D
// bytes     24 * D
// source    torch.nn.BatchNorm1d, which keeps the unbiased variance

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let d = (wg.y * groups.x + wg.x) * WG + lane;
  if (d >= params.D) {
    return;
  }
  let keep = 1.0 - params.momentum;
  let unbiased = params.momentum * (f32(params.rows) / f32(params.rows - 1u));
  running_mean[d] = keep * running_mean[d] + params.momentum * mean[d];
  running_variance[d] = keep * running_variance[d] + unbiased * variance[d];
}
