/** A data directory with users, whose passwords cost little to look at. */
import { randomBytes, scryptSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeToken, type NewToken } from '../../../server/access/tokens.ts'
import { editUsers, type TokenEntry, type UserEntry } from '../../../server/access/users-file.ts'

export async function makeDataDir(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'chunkdav-accounts-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

export function cheapHash(password: string): string {
  const salt = randomBytes(16)
  const hash = scryptSync(password, salt, 32, { N: 16, r: 8, p: 1 })
  const text = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')
  return `$scrypt$ln=4,r=8,p=1$${text(salt)}$${text(hash)}`
}

/** Adds a user, or puts another one in the place of the one with that name. */
export async function putUser(
  dataDir: string,
  name: string,
  { password, ...rest }: { password?: string } & Partial<Omit<UserEntry, 'name' | 'password'>> = {},
): Promise<void> {
  const hashed = password === undefined ? {} : { password: cheapHash(password) }
  const entry: UserEntry = { name, grants: {}, added: new Date().toISOString(), ...hashed, ...rest }
  await editUsers(dataDir, (document) => {
    document.users = [...document.users.filter((user) => user.name !== name), entry]
  })
}

export async function putToken(
  dataDir: string,
  user: string,
  rest: Partial<Omit<TokenEntry, 'id' | 'hash' | 'user'>> = {},
): Promise<NewToken> {
  const made = makeToken()
  const { id, hash } = made
  await editUsers(dataDir, ({ tokens }) => {
    tokens.push({ id, hash, user, created: new Date().toISOString(), ...rest })
  })
  return made
}
