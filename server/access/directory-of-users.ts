/**
 * The users and tokens as they stand in the files, and whether those have changed. A file that cannot be understood
 * any more changes nothing: what was known before holds until it is mended, and the log says so.
 */
import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import { failureFields, failureText } from '../failure-fields.ts'
import { readFailure } from '../read-failure.ts'
import { type Grants, identityOf, type Powers } from './grants.ts'
import { parseHtpasswd } from './htpasswd.ts'
import type { Identity } from './identity.ts'
import { readUsers, type TokenEntry, type UserEntry, usersPath } from './users-file.ts'
import { WatchedFile } from './watched-file.ts'

/** htpasswd rewrites its file in place, so for a moment there is less in it. */
const settleMs = 1000

export interface DirectoryOfUsersOptions {
  readonly dataDir: string
  readonly htpasswd?: string
  readonly log?: Logger
  /** Called whenever something may have changed. */
  readonly onChange: () => void
}

export class DirectoryOfUsers {
  readonly #options: DirectoryOfUsersOptions
  readonly #usersFile: WatchedFile
  readonly #htpasswdFile: WatchedFile | undefined
  #users: ReadonlyMap<string, UserEntry> = new Map()
  #tokens: ReadonlyMap<string, TokenEntry> = new Map()
  #htpasswd: ReadonlyMap<string, string> = new Map()
  /** What was logged last, so that it is not logged each second. */
  #fault: string | undefined

  constructor(options: DirectoryOfUsersOptions) {
    this.#options = options
    this.#usersFile = new WatchedFile(usersPath(options.dataDir))
    if (options.htpasswd !== undefined) this.#htpasswdFile = new WatchedFile(options.htpasswd, settleMs)
  }

  /** Reads the files for the first time. Problems `store-corrupt`, `usage`. */
  async load(): Promise<void> {
    await this.#usersFile.hasChanged()
    await this.#htpasswdFile?.hasChanged()
    await this.#readUsers()
    await this.#readHtpasswd()
  }

  /** Reads what has changed, or with `always` everything. Never throws. */
  async look(always = false): Promise<void> {
    await this.#refresh(this.#usersFile, always, () => this.#readUsers())
    if (this.#htpasswdFile !== undefined) {
      await this.#refresh(this.#htpasswdFile, always, () => this.#readHtpasswd())
    }
  }

  /** There may be some in a file that cannot be read, too. */
  get hasUsers(): boolean {
    return this.#users.size > 0 || this.#options.htpasswd !== undefined || this.#fault !== undefined
  }

  get tokenIds(): ReadonlySet<string> {
    return new Set(this.#tokens.keys())
  }

  /** The hash that a password of this user must have, of either kind; undefined when there can be none. */
  hashOf(name: string): string | undefined {
    return this.#users.get(name)?.password ?? this.#htpasswd.get(name)
  }

  /** Some bcrypt hash of the htpasswd file, if there is one. */
  get someBcryptHash(): string | undefined {
    const [first] = this.#htpasswd.values()
    return first
  }

  token(id: string): TokenEntry | undefined {
    return this.#tokens.get(id)
  }

  /** The user of this name, with what the file grants, through `token` if one is given. */
  identity(name: string, token?: TokenEntry): Identity | undefined {
    const user = this.#users.get(name)
    if (user === undefined) return this.#htpasswd.has(name) ? identityOf(name, { grants: {} }) : undefined
    return identityOf(
      name,
      powers(user.grants, user.metrics),
      token === undefined ? undefined : narrowed(token),
    )
  }

  async #refresh(file: WatchedFile, always: boolean, read: () => Promise<void>): Promise<void> {
    if (always) file.forget()
    try {
      if (!(await file.hasChanged())) return
      await read()
      this.#fault = undefined
      this.#options.onChange()
      this.#options.log?.info({ path: file.path }, 'the users were read again')
    } catch (error) {
      // It may be mended without another change of the file: a folder that could not be entered, too many open files.
      file.forget()
      const text = failureText('the users could not be read again; those known before still hold', error)
      if (text !== this.#fault || always) {
        this.#options.log?.error({ ...failureFields(error), path: file.path }, text)
      }
      const isNews = text !== this.#fault
      this.#fault = text
      if (isNews) this.#options.onChange()
    }
  }

  async #readUsers(): Promise<void> {
    const document = await readUsers(this.#options.dataDir)
    if (document === undefined && this.#users.size > 0) {
      throw new Problem('store-corrupt', `${this.#usersFile.path} is gone`)
    }
    const { users = [], tokens = [] } = document ?? {}
    this.#users = new Map(users.map((user) => [user.name, user]))
    this.#tokens = new Map(tokens.map((token) => [token.id, token]))
  }

  async #readHtpasswd(): Promise<void> {
    const { htpasswd: path } = this.#options
    if (path === undefined) return
    let text: string
    try {
      text = await readFile(path, 'utf8')
    } catch (cause) {
      throw new Problem('unavailable', `${path} ${readFailure(cause)}`, { cause })
    }
    this.#htpasswd = parseHtpasswd(text, path)
  }
}

function narrowed({ grants, metrics }: TokenEntry): Powers | undefined {
  if (grants === undefined && metrics === undefined) return undefined
  return powers(grants ?? {}, metrics)
}

function powers(grants: Grants, metrics = false): Powers {
  return { grants, metrics }
}
