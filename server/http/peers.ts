/**
 * Who is at the other end of a connection, as it was when the connection came: a socket that has been closed meanwhile
 * no longer tells its address, and requests that it had sent may still be at work.
 */
import type { Duplex } from 'node:stream'

export interface Peer {
  /** IPv4 addresses are written as such, also where they come in by IPv6. Undefined over a Unix socket. */
  readonly address: string | undefined
  /** The host that the listener was told to listen on; undefined for a Unix socket. */
  readonly listened: string | undefined
  readonly isEncrypted: boolean
  /** The common name of a client certificate that has been verified. */
  readonly certifiedName: string | undefined
}

const peers = new WeakMap<Duplex, Peer>()
/** Whoever was gone before anything could be learnt: trusted by nobody. */
const stranger: Peer = { address: '', listened: '', isEncrypted: false, certifiedName: undefined }

export function notePeer(socket: Duplex, peer: Peer): void {
  peers.set(socket, peer)
}

export function peerOf(socket: Duplex): Peer {
  return peers.get(socket) ?? stranger
}

/** One form for each address, so that one client is counted once: `::ffff:192.0.2.1` is 192.0.2.1. */
export function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '').toLowerCase()
}
