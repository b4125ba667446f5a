// Which of many values are the largest, without sorting them all.

/** The k-th largest of values, 1 <= k <= their number; `heap` [k] is overwritten. */
export function kthLargest(values: Float32Array, k: number, heap: Float32Array): number {
  // The smallest of the k largest so far is on top; few values of a long row are larger than it.
  for (let i = 0; i < k; i++) heap[i] = values[i]
  for (let i = (k >> 1) - 1; i >= 0; i--) sink(heap, k, i)
  for (let i = k; i < values.length; i++) {
    if (values[i] <= heap[0]) continue
    heap[0] = values[i]
    sink(heap, k, 0)
  }
  return heap[0]
}

function sink(heap: Float32Array, size: number, from: number): void {
  const value = heap[from]
  let at = from
  for (;;) {
    let child = 2 * at + 1
    if (child >= size) break
    if (child + 1 < size && heap[child + 1] < heap[child]) child++
    if (heap[child] >= value) break
    heap[at] = heap[child]
    at = child
  }
  heap[at] = value
}

/** What is kept of weights: all above `least`, and the first `equals` of those that equal it. */
export interface Kept {
  readonly least: number
  readonly equals: number
}

/**
 * The largest weights that together reach `mass`, as few as possible and at least one. `weights` [count], all above 0, are reordered.
 * Source: quickselect (Hoare 1961) on sums instead of ranks.
 */
export function largestOf(weights: Float64Array, count: number, mass: number): Kept {
  let low = 0
  let high = count
  let wanted = mass
  for (;;) {
    const pivot = middle(weights[low], weights[(low + high) >> 1], weights[high - 1])
    // [low, larger) are above the pivot, [larger, at) equal it, [smaller, high) are below it.
    let larger = low
    let smaller = high
    let above = 0
    for (let at = low; at < smaller; ) {
      const value = weights[at]
      if (value > pivot) {
        above += value
        weights[at++] = weights[larger]
        weights[larger++] = value
      } else if (value < pivot) {
        weights[at] = weights[--smaller]
        weights[smaller] = value
      } else at++
    }
    if (above >= wanted && larger > low) {
      high = larger
      continue
    }
    const equals = smaller - larger
    if (above + equals * pivot >= wanted || smaller === high) {
      const needed = Math.ceil((wanted - above) / pivot)
      return { least: pivot, equals: Math.min(equals, Math.max(1, needed)) }
    }
    wanted -= above + equals * pivot
    low = smaller
  }
}

function middle(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c))
}
