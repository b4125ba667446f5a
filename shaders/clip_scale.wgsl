// Scales a gradient by the factor that limits its norm.
//
//   grad[n] *= clip[1]
//
// grad  [N]  in place
// clip  [2]  norm and factor, as clip_factor gives them
//
// dispatch  ceil(N / WG)   one thread per element
// split     N by 4
// flops     N
// bytes     8 * N
// source    torch.nn.utils.clip_grad_norm_

const WG = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (wg.y * groups.x + wg.x) * WG + lane;
  if (i >= params.N) {
    return;
  }
  grad[i] *= clip[1];
}
