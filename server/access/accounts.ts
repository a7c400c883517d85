/**
 * Who may log in: the users and tokens of `{data}/users.json`, and those of an htpasswd file. Both files are read again
 * when they change.
 *
 * A password is looked at in this order, the cheap before the dear:
 *
 * 1. it was found wrong within the hour, and the users have not changed since: wrong, and not counted again, so that a
 *    device with an old password locks nobody out;
 * 2. too many were wrong from there: Problem `too-many-requests` (login-limits.ts);
 * 3. it was found right a short while ago: right;
 * 4. it is being hashed for another request: that result;
 * 5. it is hashed, a few at a time (hashing-queue.ts). It takes as long for a user who is not there.
 *
 * What was found is remembered under an HMAC whose key is this process's alone, and forgotten at once when the users
 * change. A token is found by its id and compared by its SHA-256, which costs nothing; nobody can guess one, so a right
 * one is taken from an address that is blocked too, and wrong ones are counted only so that they do not fill the audit.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import type { Audit } from '../audit.ts'
import { DirectoryOfUsers } from './directory-of-users.ts'
import { HashingQueue, type Rank } from './hashing-queue.ts'
import type { Identity } from './identity.ts'
import { LastUsed } from './last-used.ts'
import { LoginAudit } from './login-audit.ts'
import { addressKey, LoginLimits } from './login-limits.ts'
import { isBcryptHash, isPassword, nobodysBcryptHash, nobodysHash } from './passwords.ts'
import { tokenHash, tokenId } from './tokens.ts'
import { isUserName } from './user-name.ts'

const lookEveryMs = 1000
const rememberMs = 5 * 60_000
const rememberedLogins = 1000
/** As long as failures are counted, and longer for a device that comes again and again with its old password. */
const rememberWrongMs = 60 * 60_000
const rememberedFailures = 10_000
/** Of the four threads that files and zstd use too. */
const hashingsAtOnce = 2
const maxHashingsWaiting = 64

export interface AccountsOptions {
  readonly dataDir: string
  /** An Apache htpasswd file (bcrypt only). What its users may do stands in users.json. */
  readonly htpasswd?: string
  /** Told of failed logins. */
  readonly audit?: Audit
  /** Told of files that cannot be read while the receiver runs. */
  readonly log?: Logger
  /** How often to look whether the files have changed. */
  readonly lookEveryMs?: number
}

/** What a request brings along. A token may also stand where a password does. */
export type Credentials =
  | { readonly kind: 'basic'; readonly name: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }

export class Accounts {
  readonly #log: Logger | undefined
  readonly #directory: DirectoryOfUsers
  readonly #lastUsed: LastUsed
  readonly #audit: LoginAudit
  readonly #limits: LoginLimits
  readonly #hashing = new HashingQueue({ atOnce: hashingsAtOnce, maxWaiting: maxHashingsWaiting })
  readonly #key = randomBytes(32)
  readonly #nobody = nobodysHash()
  readonly #found = new LRUCache<string, true>({ max: rememberedLogins, ttl: rememberMs })
  readonly #wrong = new LRUCache<string, true>({
    max: rememberedFailures,
    ttl: rememberWrongMs,
    updateAgeOnHas: true,
  })
  readonly #underWay = new Map<string, Promise<boolean>>()
  readonly #timer: NodeJS.Timeout
  #looking: Promise<void> = Promise.resolve()
  #hadUsers = false

  private constructor(options: AccountsOptions, directory: DirectoryOfUsers, lastUsed: LastUsed) {
    this.#log = options.log
    this.#directory = directory
    this.#lastUsed = lastUsed
    this.#audit = new LoginAudit(options.audit)
    this.#limits = new LoginLimits({ onBlock: (block) => this.#audit.blocked(block) })
    this.#timer = setInterval(() => void this.#look(), options.lookEveryMs ?? lookEveryMs).unref()
    this.#changed()
  }

  /** Problem `store-corrupt` when users.json cannot be understood, `usage` when the htpasswd file cannot. */
  static async open(options: AccountsOptions): Promise<Accounts> {
    let onChange = (): void => {}
    const directory = new DirectoryOfUsers({ ...options, onChange: () => onChange() })
    await directory.load()
    const accounts = new Accounts(options, directory, await LastUsed.open(options.dataDir, options.log))
    onChange = () => accounts.#changed()
    return accounts
  }

  /**
   * Whether there is nobody who could log in: then everybody is `anybody`. Becomes false as soon as there is a user,
   * and then stays so for the life of this object: removing the last user locks the receiver, it does not open it.
   */
  get isEmpty(): boolean {
    return !this.#hadUsers
  }

  /**
   * Who brings these credentials along; undefined when they are wrong. `from` is the address of the client. Problem
   * `too-many-requests` (extension `retryAfter`, seconds) after too many failures, `unavailable` when too many
   * passwords wait to be hashed.
   */
  async verify(credentials: Credentials, from: string): Promise<Identity | undefined> {
    if (credentials.kind === 'bearer') return this.#verifyToken(credentials.token, undefined, from)
    const { password } = credentials
    const name = credentials.name.normalize('NFC')
    if (tokenId(password) !== undefined) return this.#verifyToken(password, name, from)
    return (await this.#isLogin(name, password, from)) ? this.#directory.identity(name) : undefined
  }

  /** The user of this name, whose identity something else has proven: a client certificate, a trusted proxy. */
  async byName(name: string): Promise<Identity | undefined> {
    return this.#directory.identity(name.normalize('NFC'))
  }

  /** Reads the files again, now. What cannot be read is logged, and what was known before still holds. */
  async reload(): Promise<void> {
    await this.#look(true)
  }

  /** Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#looking
    this.#audit.close()
    await this.#lastUsed.close()
  }

  async #look(always = false): Promise<void> {
    this.#looking = this.#looking.then(() => this.#directory.look(always))
    await this.#looking
  }

  #changed(): void {
    if (this.#hadUsers && !this.#directory.hasUsers) {
      this.#log?.warn(
        'the last user is gone: nobody gets in, until there is a user or the receiver starts again',
      )
    }
    this.#hadUsers ||= this.#directory.hasUsers
    this.#found.clear()
    this.#wrong.clear()
    this.#lastUsed.keep(this.#directory.tokenIds)
  }

  /** `name` is the one that came with it, if one did: it must be the token's user. */
  #verifyToken(token: string, name: string | undefined, from: string): Identity | undefined {
    const id = tokenId(token)
    const entry = id === undefined ? undefined : this.#directory.token(id)
    const isRight = entry !== undefined && isSame(tokenHash(token), entry.hash)
    if (isRight && !hasExpired(entry.expires) && (name === undefined || name === entry.user)) {
      this.#lastUsed.note(entry.id)
      return this.#directory.identity(entry.user, entry)
    }
    const key = this.#secretKey('token', name ?? '', token)
    if (this.#wrong.has(key)) return undefined
    const attempt = this.#limits.begin(from, '')
    this.#audit.failed({
      from,
      ...(name === undefined ? {} : { name }),
      ...(id === undefined ? {} : { token: id }),
    })
    this.#wrong.set(key, true)
    attempt.wrong()
    return undefined
  }

  async #isLogin(name: string, password: string, from: string): Promise<boolean> {
    const key = this.#secretKey('password', name, password)
    if (this.#wrong.has(key)) return false
    const counted = isUserName(name) ? name : ''
    this.#limits.expectFree(from, counted)
    if (this.#found.has(key)) return true
    let comparing = this.#underWay.get(key)
    if (comparing === undefined) {
      comparing = this.#tryLogin(key, name, counted, password, from).finally(() => this.#underWay.delete(key))
      this.#underWay.set(key, comparing)
    }
    return await comparing
  }

  async #tryLogin(
    key: string,
    name: string,
    counted: string,
    password: string,
    from: string,
  ): Promise<boolean> {
    const attempt = this.#limits.begin(from, counted)
    let isRight: boolean
    try {
      isRight = await this.#isPasswordOf(name, password, from, attempt.rank)
    } catch (error) {
      attempt.undecided()
      throw error
    }
    if (isRight) {
      attempt.right()
      this.#found.set(key, true)
    } else {
      this.#audit.failed({ name, from })
      this.#wrong.set(key, true)
      attempt.wrong()
    }
    return isRight
  }

  async #isPasswordOf(name: string, password: string, from: string, rank: Rank): Promise<boolean> {
    for (;;) {
      const hash = this.#directory.hashOf(name)
      const isRight = await this.#hashing.run(addressKey(from), rank, () => this.#compare(password, hash))
      // The users may have changed meanwhile.
      if (this.#directory.hashOf(name) === hash) return isRight
    }
  }

  /** A wrong password costs the same for a user of either file, and for one who is not there. */
  async #compare(password: string, hash: string | undefined): Promise<boolean> {
    if ((await isPassword(password, hash ?? this.#nobody)) && hash !== undefined) return true
    const other = this.#directory.someBcryptHash
    if (hash !== undefined && isBcryptHash(hash)) await isPassword(password, this.#nobody)
    else if (other !== undefined) await isPassword(password, nobodysBcryptHash(other))
    return false
  }

  #secretKey(...parts: readonly string[]): string {
    return createHmac('sha256', this.#key).update(JSON.stringify(parts)).digest('base64')
  }
}

function isSame(left: string, right: string): boolean {
  return left.length === right.length && timingSafeEqual(Buffer.from(left), Buffer.from(right))
}

function hasExpired(time: string | undefined): boolean {
  return time !== undefined && Date.parse(time) <= Date.now()
}
