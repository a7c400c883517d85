/** Who may log in: the users and tokens of `{data}/users.json`, and those of an htpasswd file. */
import type { Logger } from 'pino'
import type { Audit } from '../audit.ts'
import type { Identity } from './identity.ts'

export interface AccountsOptions {
  readonly dataDir: string
  /** An Apache htpasswd file (bcrypt only). What its users may do stands in users.json. */
  readonly htpasswd?: string
  /** Told of failed logins. */
  readonly audit?: Audit
  /** Told of files that cannot be read while the receiver runs. */
  readonly log?: Logger
}

/** What a request brings along. A token may also stand where a password does. */
export type Credentials =
  | { readonly kind: 'basic'; readonly name: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }

export class Accounts {
  private constructor() {}

  /** Problem `store-corrupt` when users.json cannot be understood, `usage` when the htpasswd file cannot. */
  static async open(_options: AccountsOptions): Promise<Accounts> {
    return new Accounts()
  }

  /**
   * Whether there is nobody who could log in: then everybody is `anybody`. Becomes false as soon as there is a user,
   * and then stays so for the life of this object: removing the last user locks the receiver, it does not open it.
   */
  get isEmpty(): boolean {
    return true
  }

  /**
   * Who brings these credentials along; undefined when they are wrong. `from` is the address of the client. Problem
   * `too-many-requests` (extension `retryAfter`, seconds) after too many failures, `unavailable` when too many
   * passwords wait to be hashed.
   */
  async verify(_credentials: Credentials, _from: string): Promise<Identity | undefined> {
    return undefined
  }

  /** The user of this name, whose identity something else has proven: a client certificate, a trusted proxy. */
  async byName(_name: string): Promise<Identity | undefined> {
    return undefined
  }

  /** Reads the files again, now. What cannot be read is logged, and what was known before still holds. */
  async reload(): Promise<void> {}

  /** Idempotent. */
  async close(): Promise<void> {}
}
