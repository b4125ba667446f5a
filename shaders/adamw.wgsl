// Moves parameters by one step of AdamW.
//
//   m[n] = beta1 * m[n] + rest1 * grad[n]
//   v[n] = beta2 * v[n] + rest2 * grad[n]^2
//   param[n] = (1 - lr * weight_decay) * param[n] - lr / correction1 * m[n] / (sqrt(v[n]) / sqrt(correction2) + eps)
//
// param  [N]  in place
// m      [N]  in place
// v      [N]  in place
// grad   [N]
//
// scalar    lr
// scalar    beta1
// scalar    beta2
// scalar    rest1         1 - beta1, which f32 cannot find from beta1 as well
// scalar    rest2         1 - beta2
// scalar    eps
// scalar    weight_decay
// scalar    correction1   1 - beta1^t at step t = 1, 2, ..
// scalar    correction2   1 - beta2^t
// dispatch  ceil(N / WG)   one thread per element
// split     N by 4
// flops     14 * N
// bytes     28 * N
// source    Loshchilov and Hutter 2019, algorithm 2; order of operations as in torch.optim.AdamW

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
  let g = grad[i];
  let first = params.beta1 * m[i] + params.rest1 * g;
  let second = params.beta2 * v[i] + params.rest2 * g * g;
  m[i] = first;
  v[i] = second;
  let size = sqrt(second) / sqrt(params.correction2) + params.eps;
  param[i] = (1.0 - params.lr * params.weight_decay) * param[i] - params.lr / params.correction1 * (first / size);
}
