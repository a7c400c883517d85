/** What the commands that read a vault have in common. */
import { InvalidArgumentError } from 'commander'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import { parseCheckpointNumber } from '../../protocol/url.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { noVaultText } from '../receiver-refusal.ts'
import type { WebDavBackups } from '../targets/webdav-backups.ts'
import { isWebDavUrl, parseWebDavUrl } from '../targets/webdav-url.ts'
import { parseVaultUrl } from '../vault-url.ts'
import type { CommandContext } from './context.ts'
import { parsePath } from './report.ts'

/** For the help of what takes a URL. */
export const passwordHelp =
  'the password of USER comes from CHUNKDAV_PASSWORD, or stands in the URL; a token comes from CHUNKDAV_TOKEN'
export const vaultArgument = [
  '<url>',
  `the vault: http[s]://[USER@]HOST:PORT/VAULT; or on any WebDAV server: webdav+https://[USER@]HOST/FOLDER; ${passwordHelp}`,
] as const
export const sourceOption = [
  '--source <name>',
  'whose backups (default: the only source in the vault)',
] as const
export const jsonProgressOption = [
  '--json',
  'one JSON object a line: progress about once a second, each problem; the last one is the summary',
] as const
export const jsonOption = ['--json', 'one JSON object a line; the last one is the summary'] as const

/** After a hint that leaves the password away: where it is to be put. */
export function passwordHint(
  { shown, withUser }: { readonly shown: string; readonly withUser: string },
  { login: { password, token }, say }: CommandContext,
): void {
  if (shown !== withUser && password === undefined && token === undefined)
    say('  with the password in CHUNKDAV_PASSWORD')
}

/** Runs `action` with a client of the vault, or of the place on a WebDAV server, at `url`, and closes it. */
export async function withVault<T>(
  url: string,
  { login }: CommandContext,
  action: (client: ReceiverClient | WebDavBackups) => Promise<T>,
): Promise<T> {
  if (isWebDavUrl(url)) {
    const [{ WebDavBackups }, { WebDavClient }] = await Promise.all([
      import('../targets/webdav-backups.ts'),
      import('../targets/webdav-client.ts'),
    ])
    const backups = new WebDavBackups(new WebDavClient(parseWebDavUrl(url, login.password)))
    try {
      return await action(backups)
    } finally {
      await backups.close()
    }
  }
  const { ReceiverClient } = await import('../receiver-client.ts')
  const client = new ReceiverClient(parseVaultUrl(url, login))
  try {
    return await action(client)
  } catch (cause) {
    if (!isProblem(cause, 'vault-not-found')) throw cause
    const text = `${noVaultText(client.location)} (a vault is made by its first backup)`
    throw new Problem('vault-not-found', text, { cause })
  } finally {
    await client.close()
  }
}

/** A checkpoint's number, or `latest`. */
export function parseCheckpointOption(text: string): number | 'latest' {
  if (text === 'latest') return text
  const number = parseCheckpointNumber(text)
  if (number === undefined) throw new InvalidArgumentError('It must be a number such as 3, or latest.')
  return number
}

/** Collects a repeatable path option. */
export function collectPath(text: string, before: Buffer[]): Buffer[] {
  return [...before, parsePath(notEmpty(text))]
}

/** A word that must say something: an empty one comes of a variable that is not set. */
export function notEmpty(text: string): string {
  if (text === '') throw new InvalidArgumentError('It must not be empty.')
  return text
}

/** The root of a checkpoint that has a tree; Problem `usage` when it is one stream. */
export function rootOf({ root, source, number }: CheckpointState): NonNullable<CheckpointState['root']> {
  if (root !== undefined) return root
  const text = `checkpoint ${number} of ${source} is one stream, without files; restore it with: chunkdav restore … --to FILE`
  throw new Problem('usage', text)
}
