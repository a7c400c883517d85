/** Connections from several addresses of this machine: to the receiver each is another client. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** All of 127.0.0.0/8 is this machine. */
export const elsewhere = '127.0.0.2'

export interface RawClient {
  readonly socket: Socket
  readonly text: () => string
  /** The other side has ended it, or cut it off. */
  readonly ended: Promise<void>
}

export async function connectFrom(localAddress: string, url: string): Promise<RawClient> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), localAddress, allowHalfOpen: false })
  let text = ''
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1')
  })
  // A reset shows as the end.
  socket.on('error', () => {})
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  await once(socket, 'connect')
  return { socket, text: () => text, ended }
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}
