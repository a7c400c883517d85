/**
 * Whose word is taken on where a request came from: reverse proxies that were named. From anybody else
 * `X-Forwarded-…` and the user's header are nothing but text.
 */
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'
import { Problem } from '../../protocol/problem.ts'
import { type Peer, plainAddress } from './peers.ts'

/** More proxies than anybody has behind each other. */
const maxHops = 16
const localSocket = 'unix'

/** What a proxy says of the client. What is malformed is left out. */
export interface Forwarded {
  /** The client's address; `local` when the proxy tells none. */
  readonly client: string
  /** The authority that the client asked for. */
  readonly host?: string
  readonly isEncrypted?: boolean
  readonly user?: string
}

export class ProxyTrust {
  /** The header with the name of the user that the proxy has authenticated; lower case. */
  readonly userHeader: string | undefined
  private readonly addresses = new BlockList()
  private readonly trustsUnix: boolean
  /** Whether any address is trusted, and not only Unix sockets. */
  readonly hasAddresses: boolean

  /** `named`: addresses, networks as `192.0.2.0/24`, and `unix` for whoever reaches a Unix socket. Problem `usage`. */
  constructor(named: readonly string[] = [], userHeader?: string) {
    for (const name of named) if (name !== localSocket) this.add(name)
    this.trustsUnix = named.includes(localSocket)
    this.hasAddresses = named.some((name) => name !== localSocket)
    this.userHeader = userHeader?.toLowerCase()
  }

  private add(name: string): void {
    const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(name) ?? []
    const version = isIP(address)
    const most = version === 4 ? 32 : 128
    const length = Number(bits ?? most)
    if (version === 0 || address.includes('%') || length > most) {
      throw new Problem(
        'usage',
        `"${name.slice(0, 80)}" is no address, no network such as 192.0.2.0/24, and not unix`,
      )
    }
    this.addresses.addSubnet(address, length, version === 4 ? 'ipv4' : 'ipv6')
  }

  get isEmpty(): boolean {
    return !this.trustsUnix && !this.hasAddresses
  }

  /** Whether this is the address of a proxy. */
  trusts(address: string): boolean {
    const plain = plainAddress(address).replace(/%.*$/, '')
    const version = isIP(plain)
    return version !== 0 && this.addresses.check(plain, version === 4 ? 'ipv4' : 'ipv6')
  }

  /** What is to be believed of the client of a request that came from `peer`; undefined when that is no proxy. */
  forwarded(peer: Peer, request: IncomingMessage): Forwarded | undefined {
    const isProxy = peer.address === undefined ? this.trustsUnix : this.trusts(peer.address)
    if (!isProxy) return undefined
    const host = lastOf(request, 'x-forwarded-host')
    const scheme = lastOf(request, 'x-forwarded-proto')?.toLowerCase()
    const user = this.userOf(request)
    return {
      client: this.clientOf(peer.address ?? 'local', request),
      ...(host !== undefined && isAuthority(host) ? { host } : {}),
      ...(scheme === 'https' || scheme === 'http' ? { isEncrypted: scheme === 'https' } : {}),
      ...(user === undefined ? {} : { user }),
    }
  }

  /**
   * Every proxy appends whom it was asked by. Read from the right, the first address that is no proxy of ours is the
   * client; what stands to the left of it, the client may have made up. What is no address ends the search: then the
   * last one that is believed is all that is known.
   */
  private clientOf(peer: string, request: IncomingMessage): string {
    const hops = valuesOf(request, 'x-forwarded-for').reverse().slice(0, maxHops)
    let client = peer
    for (const hop of hops) {
      const address = addressIn(hop)
      if (address === undefined) break
      client = address
      if (!this.trusts(address)) break
    }
    return client
  }

  private userOf(request: IncomingMessage): string | undefined {
    if (this.userHeader === undefined) return undefined
    // Two of them: one is the client's own, and which, nobody knows.
    const [value, ...others] = request.headersDistinct[this.userHeader] ?? []
    if (value === undefined || others.length > 0) return undefined
    const name = Buffer.from(value, 'latin1').toString('utf8').trim()
    return isSaneName(name) ? name : undefined
  }
}

/** A name as certificates and proxies may claim it; whether there is such a user is another question. */
export function isSaneName(name: string): boolean {
  return name.length > 0 && name.length <= 256 && !/[\p{Cc}\uFFFD]/u.test(name)
}

function valuesOf(request: IncomingMessage, header: string): string[] {
  const lines = request.headersDistinct[header] ?? []
  return lines.flatMap((line) => line.split(',')).map((value) => value.trim())
}

/** What the nearest proxy says, where several have said something. */
function lastOf(request: IncomingMessage, header: string): string | undefined {
  return valuesOf(request, header).at(-1)
}

/** The address in `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1` or `[2001:db8::1]:1234`. */
function addressIn(text: string): string | undefined {
  const [, bracketed, withPort] =
    /^(?:\[([^\]]*)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5})$/.exec(text) ?? []
  const address = bracketed ?? withPort ?? text
  return isIP(address) === 0 ? undefined : plainAddress(address)
}

function isAuthority(text: string): boolean {
  return text.length <= 260 && /^(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.test(text)
}
