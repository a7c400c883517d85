/** Users of a receiver, each with a token: logging in costs nothing that way. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Right } from '../../server/access/identity.ts'
import { makeToken } from '../../server/access/tokens.ts'

export interface TestUser {
  readonly grants?: Readonly<Record<string, Right>>
  readonly metrics?: boolean
  /** The token has expired. */
  readonly expired?: boolean
}

/** Writes users.json into a data directory. Returns each user's token. */
export async function writeUsers(
  dataDir: string,
  users: Readonly<Record<string, TestUser>>,
): Promise<Record<string, string>> {
  const tokens: Record<string, string> = {}
  const added = '2026-01-01T00:00:00Z'
  const document = {
    format: 1,
    users: Object.entries(users).map(([name, { grants = {}, metrics }]) => ({
      name,
      grants,
      ...(metrics === true && { metrics }),
      added,
    })),
    tokens: Object.entries(users).map(([user, { expired }]) => {
      const { id, token, hash } = makeToken()
      tokens[user] = token
      return { id, user, hash, created: added, ...(expired === true && { expires: added }) }
    }),
  }
  await writeFile(join(dataDir, 'users.json'), JSON.stringify(document), { mode: 0o600 })
  return tokens
}
