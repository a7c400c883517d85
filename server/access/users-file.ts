/**
 * `{data}/users.json`: who there is, what they may do, and their tokens. For its owner's eyes only (0600).
 *
 *     {"format":1,
 *      "users":[{"name":"alice","password":"$scrypt$…","grants":{"home":"write"},"added":"2026-…Z"}],
 *      "tokens":[{"id":"5f0c…","user":"alice","hash":"…","label":"laptop","created":"2026-…Z"}]}
 *
 * It is always replaced as a whole, by a rename, so that readers see one state or the next. Who changes it holds the
 * lock `{data}/users.lock` from before it reads until after it has written: of commands that run at once none undoes
 * another. The lock is the operating system's, and ends with the process however that ends. The receiver only reads.
 */
import { open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Static, Type } from '../../protocol/json-schema.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { parseJson } from '../../protocol/schema.ts'
import { type DataLock, lockFolder } from '../data-lock.ts'
import { nodeFiles } from '../file-layer.ts'
import { type Right, rights } from './identity.ts'
import { isPasswordHash } from './passwords.ts'
import { isUserName } from './user-name.ts'

const format = 1
/** How long a command waits for others that change the file. */
const patienceMs = 15_000

const closed = { additionalProperties: false }
const Time = Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$' })
const Grants = Type.Unsafe<Record<string, Right>>({
  type: 'object',
  patternProperties: { '^(\\*|[a-z0-9][a-z0-9._-]{0,62})$': { enum: rights } },
  additionalProperties: false,
})

const UserEntry = Type.Object(
  {
    name: Type.String(),
    /** Absent: others vouch for this user (an htpasswd file, a certificate, a proxy), or tokens do. */
    password: Type.Optional(Type.String()),
    grants: Grants,
    /** May read the metrics. */
    metrics: Type.Optional(Type.Boolean()),
    added: Time,
  },
  closed,
)
export type UserEntry = Static<typeof UserEntry>

const TokenEntry = Type.Object(
  {
    id: Type.String({ pattern: '^[0-9a-f]{12}$' }),
    user: Type.String(),
    /** SHA-256 of the token. */
    hash: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    label: Type.Optional(Type.String()),
    /** Absent together with `metrics`: whatever the user may do. */
    grants: Type.Optional(Grants),
    metrics: Type.Optional(Type.Boolean()),
    created: Time,
    expires: Type.Optional(Time),
  },
  closed,
)
export type TokenEntry = Static<typeof TokenEntry>

const UsersDocument = Type.Object(
  { format: Type.Literal(format), users: Type.Array(UserEntry), tokens: Type.Array(TokenEntry) },
  closed,
)
export type UsersDocument = Static<typeof UsersDocument>

export function usersPath(dataDir: string): string {
  return join(dataDir, 'users.json')
}

/** What the file says; undefined when there is none. Problem `store-corrupt`. */
export async function readUsers(dataDir: string): Promise<UsersDocument | undefined> {
  const path = usersPath(dataDir)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    return parseUsers(text)
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    // What the parser says holds pieces of the file.
    const isJson = !(cause.cause instanceof SyntaxError)
    const why = isJson ? cause.message.replace(/^the body /, 'it ') : 'it is no JSON'
    const todo = 'bring it back from a copy, or see what chunkdav doctor says'
    throw new Problem('store-corrupt', `${path} cannot be understood: ${why}; ${todo}`, { cause })
  }
}

/**
 * Changes the file: `edit` changes what it is given, and what it returns is returned when that is durable. When it
 * throws nothing is changed. Problems `in-use` when others hold the file for too long, `store-corrupt`.
 */
export async function editUsers<T>(dataDir: string, edit: (users: UsersDocument) => T): Promise<T> {
  const lock = await lockUsers(dataDir)
  try {
    const users = (await readUsers(dataDir)) ?? { format, users: [], tokens: [] }
    const result = edit(users)
    const text = `${JSON.stringify(users, undefined, 2)}\n`
    // What the receiver could not read must not get there.
    parseUsers(text)
    await replace(usersPath(dataDir), text)
    return result
  } finally {
    await lock.release()
  }
}

async function lockUsers(dataDir: string): Promise<DataLock> {
  const until = performance.now() + patienceMs
  for (;;) {
    const lock = await lockFolder(join(dataDir, 'users.lock'))
    if (lock !== undefined) return lock
    if (performance.now() > until) {
      throw new Problem('in-use', 'other commands are changing the users all the time; try again')
    }
    await sleep(10 + Math.random() * 40)
  }
}

/** As replaceDurably, and never readable by others: only the holder of the lock gets here. */
async function replace(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`
  await rm(temporary, { force: true })
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await nodeFiles.syncFolder(join(path, '..'))
}

function parseUsers(text: string): UsersDocument {
  // A later version may have changed everything but this.
  const { format: found } = parseJson(Type.Object({ format: Type.Integer({ minimum: 1 }) }), text)
  if (found > format) throw new Problem('store-corrupt', 'a later version of chunkdav has written it')
  const document = parseJson(UsersDocument, text)
  const names = new Set<string>()
  for (const { name, password } of document.users) {
    expect(isUserName(name), `${JSON.stringify(name)} is no user name`)
    expect(!names.has(name), `${name} is there twice`)
    expect(password === undefined || isPasswordHash(password), `the password of ${name} is no scrypt hash`)
    names.add(name)
  }
  const ids = new Set<string>()
  for (const { id, user, expires } of document.tokens) {
    expect(
      expires === undefined || !Number.isNaN(Date.parse(expires)),
      `the token ${id} expires at no time there is`,
    )
    expect(!ids.has(id), `the token ${id} is there twice`)
    expect(names.has(user), `the token ${id} is of nobody`)
    ids.add(id)
  }
  return document
}

function expect(holds: boolean, otherwise: string): void {
  if (!holds) throw new Problem('store-corrupt', otherwise)
}
