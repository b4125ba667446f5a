// Calls that wait at the same time are computed as one: rows of many short calls fill a batch as those of one long call do.
//
// It changes no bit, since a row does not depend on the rows beside it.

/** How a run tells what it has done. */
export interface RunProgress {
  readonly done: number
  readonly rows: number
  readonly tokens: number
  readonly totalTokens: number
}

/** What a call brings. `length` of a row counts its tokens. */
export interface Joined<Row extends { readonly length: number }> {
  readonly rows: readonly Row[]
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: RunProgress) => void
}

/**
 * Computes rows and hands over the result of each, batch by batch. `take` gives the rows, once, when it is their turn: calls that
 * came until then are among them. `lengthOf` counts the tokens of a row, `nameOf` gives its number in its own call, for errors.
 */
export type RunTogether<Row, Result> = (
  take: () => readonly Row[],
  options: {
    readonly signal: AbortSignal
    readonly lengthOf: (row: number) => number
    readonly nameOf: (row: number) => number
  },
  give: (results: ReadonlyMap<number, Result>) => void,
) => Promise<void>

interface Call<Row extends { readonly length: number }, Result> extends Joined<Row> {
  readonly results: Result[]
  readonly progress: { done: number; readonly rows: number; tokens: number; readonly totalTokens: number }
  settled: boolean
  settle(end: () => void): void
  resolve(results: Result[]): void
  reject(error: unknown): void
}

/**
 * Makes a function that runs calls: those with the same key that wait at the same time are one run. A call ends with its own signal,
 * and a failure is that of the call whose row it was: where several were one run, each is run again alone.
 */
export function together<Row extends { readonly length: number }, Result>(): (
  key: string,
  call: Joined<Row>,
  run: RunTogether<Row, Result>,
) => Promise<Result[]> {
  const waiting = new Map<string, Call<Row, Result>[]>()
  return (key, { rows, signal, onProgress }, run) =>
    new Promise((resolve, reject) => {
      const totalTokens = rows.reduce((sum, { length }) => sum + length, 0)
      const end = () => call.settle(() => reject(signal?.reason))
      const call: Call<Row, Result> = {
        ...{ rows, signal, onProgress, results: new Array<Result>(rows.length), settled: false },
        progress: { done: 0, rows: rows.length, tokens: 0, totalTokens },
        settle(settle) {
          if (call.settled) return
          call.settled = true
          signal?.removeEventListener('abort', end)
          settle()
        },
        resolve,
        reject,
      }
      signal?.addEventListener('abort', end)
      const calls = waiting.get(key)
      if (calls) calls.push(call)
      else {
        const first = [call]
        waiting.set(key, first)
        void runCalls(first, run, () => waiting.delete(key))
      }
    })
}

async function runCalls<Row extends { readonly length: number }, Result>(
  calls: readonly Call<Row, Result>[],
  run: RunTogether<Row, Result>,
  close: () => void,
): Promise<void> {
  const stop = new AbortController()
  let open: Call<Row, Result>[] = []
  let places: { readonly call: Call<Row, Result>; readonly row: number }[] = []
  const take = (): readonly Row[] => {
    close()
    open = calls.filter(({ settled }) => !settled)
    places = open.flatMap((call) => call.rows.map((_, row) => ({ call, row })))
    return places.map(({ call, row }) => call.rows[row]!)
  }
  const options = {
    signal: stop.signal,
    lengthOf: (place: number) => places[place]!.call.rows[places[place]!.row]!.length,
    nameOf: (place: number) => places[place]!.row,
  }
  try {
    await run(take, options, (results) => {
      for (const [place, result] of results) {
        const { call, row } = places[place]!
        call.results[row] = result
        call.progress.done++
        call.progress.tokens += options.lengthOf(place)
      }
      const heard = new Set([...results.keys()].map((place) => places[place]!.call))
      for (const call of heard) if (!call.settled) call.onProgress?.({ ...call.progress })
      if (calls.every(({ settled }) => settled)) stop.abort()
    })
    for (const call of open) call.settle(() => call.resolve(call.results))
  } catch (error) {
    close()
    const left = (open.length > 0 ? open : calls).filter(({ settled }) => !settled)
    if (left.length === 1) left[0]!.settle(() => left[0]!.reject(error))
    else
      for (const call of left) {
        Object.assign(call.progress, { done: 0, tokens: 0 })
        await runCalls([call], run, () => {})
      }
  }
}
