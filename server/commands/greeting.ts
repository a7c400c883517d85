import { isIPv6 } from 'node:net'
import type { Receiver } from '../receiver.ts'
import type { Surroundings } from './data-command.ts'

/** Where it is and what to do next: before the first line of the log. */
export function greet(receiver: Receiver, { calledAs }: Surroundings): void {
  const urls = receiver.listeners.map(({ url }) => (url === 'unix:' ? 'a Unix socket of systemd' : url))
  const lines = [`chunkdav listens on ${urls.join(', ')}`, `data is in ${receiver.dataDir}`]
  const hasUsers = !receiver.accounts.isEmpty
  if (hasUsers) lines.push('log in with a user and CHUNKDAV_PASSWORD, or with a token in CHUNKDAV_TOKEN')
  const url = reachableUrl(receiver)
  if (url !== undefined) {
    const place = hasUsers ? url.replace('://', '://USER@') : url
    lines.push('back up a directory with', `  ${calledAs} backup DIR ${place}/home`)
  }
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** Where a client on this machine reaches it; undefined when that is not known. */
function reachableUrl({ listeners, certifiedName }: Receiver): string | undefined {
  const listener = listeners.find(({ port }) => port > 0)
  if (listener === undefined) {
    const path = listeners.find(({ host }) => host !== '')?.host
    return path === undefined ? undefined : `http+unix://${encodeURIComponent(path)}`
  }
  const { host, port, url } = listener
  // A client compares the name in the URL with those in the certificate.
  if (certifiedName !== undefined)
    return `https://${isIPv6(certifiedName) ? `[${certifiedName}]` : certifiedName}:${port}`
  return host === '0.0.0.0' || host === '::' ? url.replace(/:\/\/.*:/, '://127.0.0.1:') : url
}
