/** Stands between a client and its server and counts the bytes of the streams: HTTP with its heads, without TCP and IP. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export interface CountingRelay extends AsyncDisposable {
  readonly port: number
  /** Since the last `reset`: from the client to the server, and back. */
  readonly sentBytes: number
  readonly receivedBytes: number
  reset(): void
}

export async function openCountingRelay(target: number): Promise<CountingRelay> {
  const counts = { sent: 0, received: 0 }
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    }
    // One side that breaks breaks the other; the programs on both sides say what that meant to them.
    client.once('error', () => upstream.destroy())
    upstream.once('error', () => client.destroy())
    client.on('data', (piece: Buffer) => {
      counts.sent += piece.length
    })
    upstream.on('data', (piece: Buffer) => {
      counts.received += piece.length
    })
    client.pipe(upstream)
    upstream.pipe(client)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port is free')
  return {
    port: address.port,
    get sentBytes() {
      return counts.sent
    },
    get receivedBytes() {
      return counts.received
    },
    reset: () => Object.assign(counts, { sent: 0, received: 0 }),
    [Symbol.asyncDispose]: async () => {
      server.close()
      for (const socket of sockets) socket.destroy()
      if (server.listening) await once(server, 'close')
    },
  }
}
