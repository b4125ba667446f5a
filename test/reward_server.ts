// A local server of rewards in OpenRLHF's shape that fails as servers and networks do.
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface RewardRequest {
  readonly query: string[]
  readonly prompts: string[]
  readonly labels: unknown[]
}

/** What happens to a request: a status, another body, no answer at all, or a connection that is closed. */
export interface Answer {
  readonly status?: number
  readonly body?: string
  readonly stall?: boolean
  readonly hangUp?: boolean
  /** Closed in the middle of the body. */
  readonly cut?: boolean
  readonly location?: string
}

export interface RewardServer {
  readonly url: string
  readonly requests: RewardRequest[]
  /** Of the requests that come, one by one; then the server works. */
  readonly faults: Answer[]
  close(): Promise<void>
}

/** Starts a server whose rewards are what `reward` says of each query, or null. */
export async function startRewards(reward: (query: string, label: unknown) => number | null): Promise<RewardServer> {
  const requests: RewardRequest[] = []
  const faults: Answer[] = []
  const server = createServer(async (request, response) => {
    const asked = JSON.parse(await bodyOf(request)) as RewardRequest
    requests.push(asked)
    const fault = faults.shift()
    if (fault?.hangUp) return void request.socket.destroy()
    if (fault?.stall) return
    const rewards = asked.query.map((query, i) => reward(query, asked.labels[i]))
    const body =
      fault?.body ??
      JSON.stringify({ rewards, scores: rewards, extra_logs: { length: asked.query.map((q) => q.length) } })
    response.writeHead(fault?.status ?? 200, {
      'Content-Type': 'application/json',
      ...(fault?.location && { Location: fault.location }),
      ...(fault?.cut && { 'Content-Length': String(body.length + 10) }),
    })
    if (fault?.cut) {
      response.write(body)
      setImmediate(() => request.socket.destroy())
    } else response.end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/get_reward`,
    requests,
    faults,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
