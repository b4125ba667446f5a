// The kernels of the quantile-regression solver: exports and their memory layout, nothing else.
//
// The features lie once in the module's own memory, row-major f32 [rows, stride] with stride a multiple of 4 and zeros in the
// padding; an intercept is a column of ones. Vectors are f64. All pointers are multiples of 16. The caller lays the memory out.

export { gram, gramScratchBytes } from './gram'
export { times, timesTransposed } from './product'
export { cholesky, solve } from './cholesky'
