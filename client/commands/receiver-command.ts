/** What the commands on a receiver's upkeep have in common. */
import { Problem } from '../../protocol/problem.ts'
import { type CheckpointName, parseCheckpointNumber, parseSourceName } from '../../protocol/url.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { isWebDavUrl } from '../targets/webdav-url.ts'
import { withoutCredentials } from '../vault-url.ts'
import type { CommandContext } from './context.ts'
import { passwordHelp, withVault } from './vault-command.ts'

export const receiverArgument = [
  '<url>',
  `the vault: http://[USER@]HOST:PORT/VAULT; ${passwordHelp}`,
] as const
export const checkpointArgument = ['<checkpoint>', 'SOURCE/N, as chunkdav checkpoints tells them'] as const

/** As `withVault`, for what only a receiver can do. */
export async function withReceiver<T>(
  url: string,
  context: CommandContext,
  action: (client: ReceiverClient) => Promise<T>,
): Promise<T> {
  if (isWebDavUrl(url)) {
    const text = `"${withoutCredentials(url)}" is another WebDAV server; this is for chunkdav receivers only`
    throw new Problem('usage', text)
  }
  return await withVault(url, context, (client) => action(client as ReceiverClient))
}

/** `laptop/3`. Problem `usage`. */
export function parseCheckpointArgument(text: string): CheckpointName {
  const [source = '', digits = '', ...rest] = text.split('/')
  const number = parseCheckpointNumber(digits)
  if (number === undefined || rest.length > 0) {
    throw new Problem('usage', `"${text}" is no checkpoint; it looks like laptop/3`)
  }
  return { source: parseSourceName(source), number }
}

/** The time of the receiver, in UTC, for people. */
export function shownTime(timestamp: string): string {
  return timestamp.replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC')
}
