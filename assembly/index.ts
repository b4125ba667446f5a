// What the module exports. Every kernel takes the addresses of its tensors in the order of its header (row-major, f32
// unless the header says otherwise, 64-byte aligned), then the sizes, then the scalars, then the half-open range of the
// header's `split` index to work on. Every thread has an instance of its own on the same memory.

export { heap_base, scratch_bytes, set_scratch } from './scratch'
export * from './generated/kernels'
