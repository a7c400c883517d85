/**
 * The sockets that a receiver listens on: each has an HTTP server of its own, all with the same handler. With a
 * certificate every TCP listener speaks TLS; a Unix socket never does.
 */
import { createServer, type Server, type ServerOptions } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Logger } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import { isLoopback } from '../http/own-origin.ts'
import { notePeer, plainAddress } from '../http/peers.ts'
import { isSaneName } from '../http/proxy-trust.ts'
import type { Certificate } from './certificate.ts'
import { admissionOn, type Exposure } from './exposure.ts'
import { firstSystemdSocket, type Place } from './place.ts'
import { bindWithMode, clearStaleSocket } from './unix-socket.ts'

/** A client that has connected must have agreed on its keys by then. */
const handshakeTimeoutMs = 15_000

export interface ListenersOptions {
  readonly http: ServerOptions
  readonly certificate: Certificate | undefined
  /** Who may come; undefined lets everybody come, for programs that know what they do. */
  readonly exposure: Exposure | undefined
  /** Called with every server before it listens. */
  readonly onServer: (server: Server) => void
  readonly log: Logger
}

/** One of them, at work. */
export interface Listener {
  readonly server: Server
  /** As it is bound: an address, or the path of a Unix socket. */
  readonly host: string
  /** 0 for a Unix socket. */
  readonly port: number
  /** `http://…` or `https://…` without a slash at its end, or `unix:/path`. */
  readonly url: string
}

export class Listeners {
  readonly all: readonly Listener[]
  private readonly certificate: Certificate | undefined
  private reloading: Promise<void> = Promise.resolve()

  private constructor(all: readonly Listener[], certificate: Certificate | undefined) {
    this.all = all
    this.certificate = certificate
  }

  /**
   * Listens on every place, or on none. Problems `usage` where nobody may listen, `in-use` for a Unix socket, and
   * errors of the system as they are.
   */
  static async open(places: readonly Place[], options: ListenersOptions): Promise<Listeners> {
    if (places.length === 0) throw new TypeError('a receiver must listen somewhere')
    const { exposure } = options
    // All are judged before the first takes a connection.
    for (const place of places) if (place.kind === 'tcp' && exposure) admissionOn(place.host, exposure)
    const opened: Listener[] = []
    try {
      for (const place of places) {
        for (const listening of listenOn(place, options)) opened.push(await listening())
      }
    } catch (error) {
      for (const { server } of opened) server.close()
      throw error
    }
    return new Listeners(opened, options.certificate)
  }

  /** Reads the certificate again. Connections that are there keep what they have. Of several calls the last one holds. */
  async reload(): Promise<void> {
    this.reloading = this.reloading.then(() => this.reloadCertificate())
    await this.reloading
  }

  private async reloadCertificate(): Promise<void> {
    const { certificate } = this
    if (certificate === undefined || !(await certificate.reload())) return
    for (const { server } of this.all) if (isTls(server)) server.setSecureContext(certificate.context)
  }

  /** Takes no more connections. Resolves when the last one has ended; `onClosing` is called in between. */
  async close(onClosing: () => void): Promise<void> {
    this.certificate?.close()
    const ended = this.all.map(({ server }) => new Promise<void>((resolve) => server.close(() => resolve())))
    onClosing()
    await Promise.all(ended)
  }

  /** Cuts off whatever is under way. */
  closeAllConnections(): void {
    for (const { server } of this.all) server.closeAllConnections()
  }
}

/** What is to be done for a place, step by step. */
function listenOn(place: Place, options: ListenersOptions): (() => Promise<Listener>)[] {
  if (place.kind === 'tcp') return [() => onTcp(place, options)]
  if (place.kind === 'unix') return [() => onUnixSocket(place, options)]
  if (place.count === 0) {
    throw new Problem(
      'usage',
      'systemd has handed over no socket; this belongs into a unit that has a .socket beside it',
    )
  }
  return Array.from({ length: place.count }, (_, i) => () => onInherited(firstSystemdSocket + i, options))
}

async function onTcp({ host, port }: Place & { kind: 'tcp' }, options: ListenersOptions): Promise<Listener> {
  const { certificate } = options
  const server = certificate === undefined ? plainServer(options) : tlsServer(certificate, options)
  prepare(server, host, options)
  await bound(server, () => server.listen(port, host))
  return tcpListener(server)
}

async function onUnixSocket(
  { path, mode }: Place & { kind: 'unix' },
  options: ListenersOptions,
): Promise<Listener> {
  await clearStaleSocket(path)
  const server = plainServer(options)
  prepare(server, undefined, options)
  await bound(server, () => bindWithMode(path, mode, server, () => server.listen(path)))
  return { server, host: path, port: 0, url: `unix:${path}` }
}

/**
 * A socket that is open already. Only once it is taken it tells what it is; nothing waits between that and the
 * judgement, so that no connection comes in between.
 */
async function onInherited(fd: number, options: ListenersOptions): Promise<Listener> {
  const plain = plainServer(options)
  let server: Server = plain
  await bound(plain, () => {
    plain.listen({ fd })
    const address = plain.address() as AddressInfo | null
    if (!plain.listening) return
    if (address !== null && options.certificate !== undefined) {
      server = tlsServer(options.certificate, options)
    }
    try {
      prepare(server, address?.address, options)
    } catch (error) {
      plain.close()
      throw error
    }
    if (server !== plain) server.listen(plain)
  })
  return plain.address() === null ? { server, host: '', port: 0, url: 'unix:' } : tcpListener(server)
}

function tcpListener(server: Server): Listener {
  const { address, family, port } = server.address() as AddressInfo
  const host = family === 'IPv6' ? `[${address}]` : address
  return { server, host: address, port, url: `${isTls(server) ? 'https' : 'http'}://${host}:${port}` }
}

/** Resolves when it listens. `bind` begins, and may throw what makes it end. */
async function bound(server: Server, bind: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', () => {
      server.off('error', reject)
      resolve()
    })
    try {
      bind()
    } catch (error) {
      reject(error)
    }
  })
}

function plainServer({ http }: ListenersOptions): Server {
  return createServer(http)
}

function tlsServer(certificate: Certificate, { http }: ListenersOptions): TlsServer {
  const { clientCa, isClientRequired = false } = certificate.files
  return createTlsServer({
    ...http,
    ...certificate.context,
    handshakeTimeout: handshakeTimeoutMs,
    requestCert: clientCa !== undefined,
    rejectUnauthorized: isClientRequired,
  })
}

function isTls(server: Server): server is TlsServer {
  return 'setSecureContext' in server
}

/** To be done before it listens. `host` is where it does; undefined is a Unix socket. Problem `usage`. */
function prepare(server: Server, host: string | undefined, options: ListenersOptions): void {
  const { exposure, log } = options
  const admission = exposure === undefined ? 'everybody' : admissionOn(host, exposure)
  const admits = (socket: Socket): boolean => admission === 'everybody' || isProxy(socket, exposure?.trust)
  server.on('connection', (socket: Socket) => {
    if (!admits(socket)) {
      log.debug({ from: socket.remoteAddress }, 'a connection that comes from no trusted proxy was refused')
      socket.destroy()
    } else if (!isTls(server)) note(socket, host)
  })
  if (isTls(server)) server.on('secureConnection', (socket) => note(socket, host, certifiedName(socket)))
  options.onServer(server)
}

function isProxy(socket: Socket, trust: Exposure['trust'] | undefined): boolean {
  const address = plainAddress(socket.remoteAddress ?? '')
  return isLoopback(address) || trust?.trusts(address) === true
}

function note(socket: Socket, listened: string | undefined, certifiedName?: string): void {
  const address = listened === undefined ? undefined : plainAddress(socket.remoteAddress ?? '')
  notePeer(socket, { address, listened, isEncrypted: 'encrypted' in socket, certifiedName })
}

/** The common name of a certificate that a trusted authority has signed; a certificate with several has none. */
function certifiedName(socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined
  const { CN: name } = socket.getPeerCertificate().subject ?? {}
  return typeof name === 'string' && isSaneName(name) ? name : undefined
}
