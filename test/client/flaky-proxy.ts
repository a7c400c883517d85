/** A TCP proxy that breaks connections where a test says so: resets, not polite closes. */

import type { AddressInfo } from 'node:net'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** What becomes of one connection: reset at once, reset after so many bytes of answers, or left alone. */
export type Fault = 'reset' | { readonly answerBytes: number } | 'none'

export class FlakyProxy {
  /** The faults of the next connections, in order; then `otherwise`. */
  faults: Fault[] = []
  otherwise: Fault = 'none'
  connections = 0
  /** Bytes of answers taken from the receiver. */
  bytesForwarded = 0
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(target: URL) {
    this.#server = createServer((client) => this.#serve(client, target))
  }

  static async start(targetUrl: string): Promise<FlakyProxy> {
    const proxy = new FlakyProxy(new URL(targetUrl))
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  #serve(client: Socket, target: URL): void {
    this.connections++
    this.#watch(client)
    const fault = this.faults.shift() ?? this.otherwise
    if (fault === 'reset') {
      client.resetAndDestroy()
      return
    }
    const upstream = connect({ host: target.hostname, port: Number(target.port) })
    this.#watch(upstream)
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => client.destroy())
    client.pipe(upstream)
    let left = fault === 'none' ? Number.POSITIVE_INFINITY : fault.answerBytes
    upstream.on('data', (bytes) => {
      this.bytesForwarded += bytes.length
      const whole = client.write(bytes.subarray(0, left))
      left -= bytes.length
      if (left <= 0) client.resetAndDestroy()
      else if (!whole) {
        upstream.pause()
        client.once('drain', () => upstream.resume())
      }
    })
  }

  #watch(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
