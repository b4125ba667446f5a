// The scratch memory of one thread: every instance of the module gets its own block before it runs a kernel.

// Bytes of one block; large enough for a packed panel of weights.
export const SCRATCH_BYTES: u32 = 1 << 20

// Address of this instance's block, aligned to 64 bytes.
export let scratch: usize = 0

export function set_scratch(address: usize): void {
  scratch = address
}

export function scratch_bytes(): u32 {
  return SCRATCH_BYTES
}

// First address that the module's static data leaves free.
export function heap_base(): usize {
  return __heap_base
}
