/**
 * How many wrong logins are looked at; beyond that none is, so no password is hashed either. Three counts, each
 * forgotten after an hour without a further failure:
 *
 * - of an address for one name: ten are free, then each costs a wait of 1 s, 2 s, 4 s, … up to 15 minutes;
 * - of an address for all names: the same after fifty;
 * - of a name from all addresses: it blocks nobody. From fifty on, an address from which that name has not logged in
 *   before has one try free instead of ten. So many addresses together get little further than one, and the owner
 *   gets in with the right password, whoever attacks the name, from every address that is not blocked itself.
 *
 * Tries under way count as failures until they are decided: a thousand at once are no way around. An IPv6 address
 * stands for its /64, which is what one customer is given. Memory: the counts used last, 10,000 of each kind.
 */
import { isIPv6 } from 'node:net'
import { LRUCache } from 'lru-cache'
import { Problem } from '../../protocol/problem.ts'
import type { Rank } from './hashing-queue.ts'

const maxCounts = 10_000
const free = { pair: 10, attackedPair: 1, address: 50 } as const
const attackedFrom = 50
const firstWaitMs = 1000
const maxWaitMs = 15 * 60_000
const forgetMs = 60 * 60_000

interface Count {
  failures: number
  underWay: number
  blockedUntil: number
  lastFailure: number
  /** This name has logged in from this address. */
  welcome: boolean
}

export interface Block {
  readonly from: string
  /** Absent when the address is blocked for every name. */
  readonly name?: string
  readonly seconds: number
}

/** A login that was let through; exactly one of these is to be called. */
export interface Try {
  readonly rank: Rank
  right(): void
  wrong(): void
  /** Nobody looked. */
  undecided(): void
}

export interface LoginLimitsOptions {
  /** Told once of each block as it begins. */
  readonly onBlock?: (block: Block) => void
  /** A clock that only goes forward, in ms. */
  readonly now?: () => number
}

export class LoginLimits {
  readonly #onBlock: (block: Block) => void
  readonly #now: () => number
  readonly #pairs = new LRUCache<string, Count>({ max: maxCounts })
  readonly #addresses = new LRUCache<string, Count>({ max: maxCounts })
  readonly #names = new LRUCache<string, Count>({ max: maxCounts })

  constructor({ onBlock = () => {}, now = () => performance.now() }: LoginLimitsOptions = {}) {
    this.#onBlock = onBlock
    this.#now = now
  }

  /** Problem `too-many-requests` when nothing is taken from there now, for this name. */
  expectFree(from: string, name: string): void {
    const address = addressKey(from)
    const until = Math.max(
      this.#pairs.get(pairKey(address, name))?.blockedUntil ?? 0,
      this.#addresses.get(address)?.blockedUntil ?? 0,
    )
    if (until > this.#now()) throw tooMany((until - this.#now()) / 1000)
  }

  /** Begins to look at a login. `name` is that of a user there can be, or empty. Problem `too-many-requests`. */
  begin(from: string, name: string): Try {
    this.expectFree(from, name)
    const address = addressKey(from)
    const pair = this.#count(this.#pairs, pairKey(address, name))
    const all = this.#count(this.#addresses, address)
    const named = this.#count(this.#names, name)
    const isAttacked = named.failures >= attackedFrom && !pair.welcome
    const pairFree = isAttacked ? free.attackedPair : free.pair
    if (isUsedUp(pair, pairFree) || isUsedUp(all, free.address)) throw tooMany(1)
    pair.underWay++
    all.underWay++
    const end = (): void => {
      pair.underWay--
      all.underWay--
    }
    return {
      rank: pair.welcome ? 'welcome' : pair.failures > 0 || all.failures > 0 ? 'suspect' : 'unknown',
      right: () => {
        end()
        pair.failures = 0
        pair.welcome = true
      },
      wrong: () => {
        end()
        this.#fail(named)
        this.#fail(pair, pairFree, { from, name })
        this.#fail(all, free.address, { from })
      },
      undecided: end,
    }
  }

  #count(counts: LRUCache<string, Count>, key: string): Count {
    let count = counts.get(key)
    if (count === undefined) {
      count = { failures: 0, underWay: 0, blockedUntil: 0, lastFailure: 0, welcome: false }
      counts.set(key, count)
    } else if (this.#now() - count.lastFailure > forgetMs) count.failures = 0
    return count
  }

  #fail(count: Count, free = Number.POSITIVE_INFINITY, who?: { from: string; name?: string }): void {
    count.failures++
    count.lastFailure = this.#now()
    if (count.failures < free || who === undefined) return
    const waitMs = Math.min(firstWaitMs * 2 ** Math.min(count.failures - free, 30), maxWaitMs)
    count.blockedUntil = this.#now() + waitMs
    this.#onBlock({ ...who, seconds: waitMs / 1000 })
  }
}

/** Once the free ones are gone, one at a time is let through when its wait is over. */
function isUsedUp({ failures, underWay }: Count, free: number): boolean {
  return underWay >= Math.max(1, free - failures)
}

function tooMany(seconds: number): Problem {
  const retryAfter = Math.max(1, Math.ceil(seconds))
  return new Problem(
    'too-many-requests',
    `too many logins from there were wrong; try again in ${retryAfter} s`,
    { extensions: { retryAfter } },
  )
}

function pairKey(address: string, name: string): string {
  return `${address} ${name}`
}

/** What is counted for an address: of IPv6 the first 64 bits, and an IPv4 address that comes as IPv6 by itself. */
export function addressKey(from: string): string {
  const [address = ''] = from.split('%')
  if (!isIPv6(address)) return from.slice(0, 80)
  const [, v4] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? []
  if (v4 !== undefined) return v4
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [left, right] = [head, tail ?? ''].map((part) => (part === '' ? [] : part.split(':')))
  const zeros = tail === undefined ? 0 : 8 - (left?.length ?? 0) - (right?.length ?? 0)
  const groups = [...(left ?? []), ...Array<string>(zeros).fill('0'), ...(right ?? [])]
  return `${groups.slice(0, 4).join(':')}::/64`
}
