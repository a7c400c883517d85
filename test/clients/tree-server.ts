/**
 * The server that the clients are tried on: a receiver of ours and its live tree.
 *
 * `CHUNKDAV_CLIENTS_SERVER=apache npm run test:clients` (or nginx, rclone) tries them on another WebDAV server
 * instead, which tells whether a failure is ours or the client's. What only ours has is skipped then.
 */
import { pino } from 'pino'
import { davPrograms } from '../support/dav-servers.ts'
import { startReceiver } from '../support/receiver.ts'

const otherName = process.env.CHUNKDAV_CLIENTS_SERVER

/** Whether the server is the receiver. */
export const isOurs = otherName === undefined

/** Why a test of what only our receiver has is skipped; undefined when it is not. */
export const onlyOurs = isOurs ? undefined : `${otherName} does not have that`

export interface TreeServer extends AsyncDisposable {
  /** The collection that the clients may fill, with a slash at its end. */
  readonly url: string
  /** `http://127.0.0.1:port/home`: of ours only. */
  readonly vaultUrl: string
  /** How many requests of each method since the last call, as the server's own log has them. */
  countRequests(): Promise<Record<string, number>>
}

export function startTree(): Promise<TreeServer> {
  return otherName === undefined ? startOurs() : startOther(otherName)
}

async function startOurs(): Promise<TreeServer> {
  const methods: string[] = []
  const write = (text: string): void => {
    const line = JSON.parse(text) as { method?: string; status?: number }
    if (line.method !== undefined) methods.push(line.method)
    if ((line.status ?? 0) >= 500) process.stderr.write(text)
  }
  const receiver = await startReceiver({ log: pino({ level: 'debug' }, { write }) })
  return {
    url: `${receiver.vaultUrl}/tree/`,
    vaultUrl: receiver.vaultUrl,
    countRequests: async () => count(methods.splice(0)),
    [Symbol.asyncDispose]: () => receiver.stop(),
  }
}

async function startOther(name: string): Promise<TreeServer> {
  const program = davPrograms.find((program) => program.name.toLowerCase() === name.toLowerCase())
  if (program === undefined) throw new TypeError(`CHUNKDAV_CLIENTS_SERVER is no server: ${name}`)
  const server = await program.start()
  let counted = 0
  return {
    url: `${server.url}/`,
    vaultUrl: server.url,
    countRequests: async () => {
      const requests = (await server.requests()).slice(counted)
      counted += requests.length
      return count(requests.map(({ method }) => method))
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
}

function count(methods: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const method of methods.toSorted()) counts[method] = (counts[method] ?? 0) + 1
  return counts
}

/** `PROPFIND 12, PUT 3` */
export function describeCounts(counts: Record<string, number>): string {
  const entries = Object.entries(counts)
  return entries.length === 0 ? 'none seen' : entries.map(([method, n]) => `${method} ${n}`).join(', ')
}
