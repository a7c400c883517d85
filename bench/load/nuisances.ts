/**
 * Connections that do harm, each from an address of its own kind: half-open ones, heads byte by byte, bodies byte by byte,
 * answers that nobody reads. What the receiver closes is opened again.
 */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

export interface NuisanceOptions {
  readonly url: string
  /** Connections that send a byte of their head now and then. */
  readonly slowHeads: number
  /** Connections that send nothing. */
  readonly halfOpen: number
  /** Of a user: bodies that come byte by byte, and answers that are not read. */
  readonly slowBodies: number
  readonly slowReaders: number
  readonly vault: string
  readonly authorization: string
  /** Something large that can be read. */
  readonly chunkId: string
}

export interface NuisanceFigures {
  /** Connections made, and those that the receiver ended. */
  opened: number
  closed: number
}

interface Kind {
  readonly count: number
  readonly localAddress: string
  readonly head: string
  /** Sent again and again. */
  readonly drip: string
  readonly reads: boolean
}

const dripMs = 1000
const pauseMs = 200

export class Nuisances {
  readonly figures: NuisanceFigures = { opened: 0, closed: 0 }
  readonly #sockets = new Set<Socket>()
  readonly #loops: Promise<void>[] = []
  #stopped = false

  constructor(options: NuisanceOptions) {
    const { vault, authorization, chunkId } = options
    const head = (line: string): string =>
      `${line} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: ${authorization}\r\n`
    const absent = chunkId.replace(/.{8}$/, '00000000')
    const kinds: Kind[] = [
      {
        count: options.slowHeads,
        localAddress: '127.0.0.9',
        head: 'GET / HTTP/1.1\r\nX-Slow: ',
        drip: 'x',
        reads: true,
      },
      { count: options.halfOpen, localAddress: '127.0.0.10', head: '', drip: '', reads: true },
      {
        count: options.slowBodies,
        localAddress: '127.0.0.11',
        head: `${head(`PUT /${vault}/chunks/${absent}`)}Content-Length: 16777216\r\n\r\n`,
        drip: 'x',
        reads: true,
      },
      {
        count: options.slowReaders,
        localAddress: '127.0.0.12',
        head: `${head(`GET /${vault}/chunks/${chunkId}`)}\r\n`,
        drip: '',
        reads: false,
      },
    ]
    for (const kind of kinds) {
      for (let i = 0; i < kind.count; i++) this.#loops.push(this.#annoy(kind, options.url))
    }
  }

  async #annoy(kind: Kind, url: string): Promise<void> {
    while (!this.#stopped) {
      await this.#once(kind, url)
      await sleep(pauseMs)
    }
  }

  #once({ localAddress, head, drip, reads }: Kind, url: string): Promise<void> {
    const { hostname: host, port } = new URL(url)
    return new Promise((resolve) => {
      const socket = connect({ host, port: Number(port), localAddress })
      this.#sockets.add(socket)
      const timer = drip === '' ? undefined : setInterval(() => socket.write(drip), dripMs)
      socket.once('connect', () => {
        this.figures.opened++
        if (reads) socket.resume()
        else socket.pause()
        if (head !== '') socket.write(head)
      })
      // A reset shows as the end.
      socket.on('error', () => {})
      socket.once('close', () => {
        clearInterval(timer)
        this.#sockets.delete(socket)
        if (!this.#stopped) this.figures.closed++
        resolve()
      })
    })
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const socket of this.#sockets) socket.destroy()
    await Promise.all(this.#loops)
  }
}
