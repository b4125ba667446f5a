// Rewards from an HTTP endpoint in OpenRLHF's shape. It fails closed: a batch has all its rewards, or the training stops.
//
//   POST {"query": [...], "prompts": [...], "labels": [...]}  ->  {"rewards": [...], "scores": [...], "extra_logs": {...}}
//
// Source: OpenRLHF, openrlhf/utils/remote_rm_utils.py and openrlhf/cli/serve_rm.py.
import { shownUrl } from '../../files/http.ts'
import { isObject, show } from '../../files/json.ts'
import { meanOf } from './log.ts'
import type { RewardRow, RewardSource, Rewards } from './rewards.ts'

export interface HttpRewardOptions {
  readonly name?: string
  /** Default 1. */
  readonly weight?: number
  /** Seconds that one try may take; default 180. */
  readonly timeoutSeconds?: number
  /** Tries in all; default 5. */
  readonly tries?: number
  /** Pause after the first failure in milliseconds, doubled after each; default 1,000. */
  readonly pauseMs?: number
  /** Takes a line about a failure after which it is tried again. */
  readonly onRetry?: (line: string) => void
  readonly headers?: Readonly<Record<string, string>>
  /** Instead of the global fetch. */
  readonly fetch?: typeof fetch
}

const BODY_BYTES = 16 * 2 ** 20

/** A failure that another try may not have. */
class Passing extends Error {}
/** One that it would have again. */
class Refused extends Error {}

/**
 * Makes a source of an endpoint. `rewards` may hold null for none. Server errors, dropped and slow connections are tried again; everything
 * else stops the training: other statuses, bodies over 16 MiB, what is no JSON (a bare NaN is none), another number of rewards.
 */
export function httpReward(url: string, options: HttpRewardOptions = {}): RewardSource {
  const address = shownUrl(url)
  const { name = address, weight, tries = 5, pauseMs = 1000, onRetry } = options
  const { target, own } = withoutCredentials(url)
  return {
    name,
    weight,
    identity: { url: address },
    reads: 'text',
    async score(rows, { signal }) {
      const body = JSON.stringify({
        query: rows.map((row) => textOf(row, address)),
        prompts: rows.map(({ prompt }) => prompt),
        labels: rows.map(({ label }) => label ?? null),
      })
      for (let failures = 0; ; ) {
        try {
          return readRewards(
            await post(target, body, address, { ...options, headers: { ...own, ...options.headers } }, signal),
            rows.length,
            address,
          )
        } catch (error) {
          signal?.throwIfAborted()
          if (!(error instanceof Passing)) throw error
          if (++failures >= tries)
            throw new Error(
              `${address}: ${error.message} (tries: ${failures}); nothing is lost, the same call goes on when it does`,
            )
          const wait = pauseMs * 2 ** (failures - 1)
          onRetry?.(`${address}: ${error.message}; try ${failures + 1} of ${tries} in ${wait / 1000} s`)
          await pause(wait, signal)
        }
      }
    },
  }
}

/** What fetch does not take in an address, a user and a password, as the header that they stand for. */
function withoutCredentials(url: string): { target: string; own: Record<string, string> } {
  const target = new URL(url)
  const { username, password } = target
  if (username === '' && password === '') return { target: url, own: {} }
  target.username = ''
  target.password = ''
  const bytes = new TextEncoder().encode(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`)
  return { target: target.href, own: { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` } }
}

/** Prompt and completion as one text. */
function textOf({ prompt, completion }: RewardRow, address: string): string {
  if (prompt !== null && completion !== null) return prompt + completion
  throw new Error(`${address}: is sent texts, and the policy has no tokenizer.json`)
}

async function post(
  url: string,
  body: string,
  address: string,
  { fetch: send = fetch, headers, timeoutSeconds = 180 }: HttpRewardOptions,
  signal?: AbortSignal,
): Promise<string> {
  const controller = new AbortController()
  let late = false
  const timer = setTimeout(() => {
    late = true
    controller.abort()
  }, 1000 * timeoutSeconds)
  const stop = () => controller.abort()
  signal?.addEventListener('abort', stop, { once: true })
  try {
    const response = await send(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body,
      redirect: 'manual',
      signal: controller.signal,
    })
    return await readBody(response, address)
  } catch (error) {
    if (error instanceof Passing || error instanceof Refused) throw error
    if (late) throw new Passing(`the server does not answer within ${timeoutSeconds} s`)
    const { message, cause } = error as Error & { cause?: { code?: string; message?: string } }
    throw new Passing(`the server cannot be reached (${cause?.code ?? cause?.message ?? message})`)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
}

async function readBody(response: Response, address: string): Promise<string> {
  const { status } = response
  if (status !== 200) {
    await response.body?.cancel().catch(() => {})
    if (status >= 500) throw new Passing(`the server answers ${status}`)
    throw new Refused(`${address}: the server answers ${status}; it must be 200 with {"rewards": [...]}`)
  }
  const decoder = new TextDecoder()
  let [text, bytes] = ['', 0]
  const reader = response.body!.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return text + decoder.decode()
    bytes += value.length
    if (bytes > BODY_BYTES) {
      await reader.cancel().catch(() => {})
      throw new Refused(`${address}: the answer has more than ${BODY_BYTES} bytes`)
    }
    text += decoder.decode(value, { stream: true })
  }
}

function readRewards(text: string, count: number, address: string): Rewards {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    throw new Error(`${address}: the answer is no JSON (a bare NaN or Infinity is none): ${show(text.slice(0, 100))}`)
  }
  const rewards = isObject(answer) ? answer.rewards : undefined
  if (!isObject(answer) || !Array.isArray(rewards))
    throw new Error(`${address}: must answer {"rewards": [...]}, got ${show(answer)}`)
  if (rewards.length !== count) throw new Error(`${address}: must give ${count} rewards, got ${rewards.length}`)
  const bad = rewards.find((reward: unknown) => reward !== null && !Number.isFinite(reward))
  if (bad !== undefined)
    throw new Error(`${address}: rewards must be numbers or null, got ${typeof bad === 'number' ? bad : show(bad)}`)
  const extra: Record<string, number> = {}
  const logs = isObject(answer.extra_logs) ? answer.extra_logs : {}
  for (const [key, values] of [['scores', answer.scores] as const, ...Object.entries(logs)]) {
    const numbers = (Array.isArray(values) ? values : [values]).filter((value): value is number =>
      Number.isFinite(value),
    )
    if (numbers.length > 0) extra[key] = meanOf(numbers)
  }
  return { rewards: rewards as (number | null)[], extra }
}

/** Waits, or throws the reason of the signal. */
function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop)
      resolve()
    }, ms)
    signal?.addEventListener('abort', stop, { once: true })
  })
}
