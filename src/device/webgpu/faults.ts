// What went wrong on a GPU device: WebGPU tells it later and elsewhere, so that it is kept for whoever waits next.

/** Constants of the WebGPU standard; as globals they exist in browsers only. */
export const GPU_USAGE = {
  MAP_READ: 0x1,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
}
export const GPU_MAP_READ = 0x1
export const GPU_COMPUTE = 0x4

export class Faults {
  /** After this nothing is an error any more. */
  destroyed = false
  #first: Error | null = null

  constructor(device: GPUDevice) {
    device.onuncapturederror = ({ error }) => this.keep(error.message)
    device.lost.then(({ message, reason }) => {
      if (!this.destroyed) this.keep(`the device was lost (${reason}): ${message}; open it again and reload the model`)
    })
  }

  /** Whether there is an error to throw. */
  get found(): boolean {
    return this.#first !== null
  }

  keep(message: string): void {
    this.#first ??= new Error(`webgpu: ${message.split('\n').join(' ')}`)
  }

  /** Throws the first error. */
  check(): void {
    if (this.#first) throw this.#first
    if (this.destroyed) throw new Error('webgpu: the device has been destroyed')
  }
}
