// The public names that work in every runtime.
export type { Device, TensorOptions } from './device/device.ts'
export { DEVICE_KINDS, type DeviceKind, type OpenOptions, openDevice } from './device/open.ts'
export type { DType, Tensor, TensorData } from './device/tensor.ts'
