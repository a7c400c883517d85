/** Who shares what is bounded per client: a user where there are users, else whoever has the same address. */
import { isIPv6 } from 'node:net'
import { anybody } from '../access/identity.ts'
import type { Context } from './context.ts'
import { plainAddress } from './peers.ts'

/** Addresses and users cannot be taken for one another. */
export function clientOf(ctx: Pick<Context, 'state'>): string {
  const { who, client } = ctx.state
  return who === anybody ? networkOf(client) : `user ${who.name}`
}

/** What one client is likely to have of addresses: of IPv6 a /64, of IPv4 one. `local` where there is none. */
export function networkOf(address: string | undefined): string {
  if (address === undefined || address === '') return 'local'
  const plain = plainAddress(address)
  return isIPv6(plain) ? `${firstGroups(plain, 4).join(':')}::/64` : plain
}

/** The first groups of an IPv6 address, `::` written out. */
function firstGroups(address: string, count: number): string[] {
  const [head = '', tail] = address.split('%', 1)[0]?.split('::') ?? []
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - groups.length - rest.length)
  return [...groups, ...Array<string>(zeros).fill('0'), ...rest].slice(0, count)
}
