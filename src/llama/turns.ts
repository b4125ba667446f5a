// Work on a loaded model that is done one after the other: it has one set of buffers, and may stream its layers.

/** Makes a line: each work begins when those before it have ended, well or not. */
export function turns(): <T>(work: () => Promise<T>) => Promise<T> {
  let queue: Promise<unknown> = Promise.resolve()
  return (work) => {
    const turn = queue.then(work)
    queue = turn.catch(() => {})
    return turn
  }
}
