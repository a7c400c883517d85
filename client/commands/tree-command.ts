/** What the commands on live trees have in common. */
import { isProblem, Problem } from '../../protocol/problem.ts'
import { noVaultText } from '../receiver-refusal.ts'
import { isWebDavUrl } from '../targets/webdav-url.ts'
import { TreeClient } from '../tree-client.ts'
import { type VaultLocation, withoutCredentials } from '../vault-url.ts'
import { showPath } from './report.ts'

/** `url`, when it may be that of a receiver; Problem `usage` when it is that of another WebDAV server. */
export function receiverUrl(url: string): string {
  if (!isWebDavUrl(url)) return url
  const text = `"${withoutCredentials(url)}" is another WebDAV server; only a receiver has a live tree and a trash`
  throw new Problem('usage', text)
}

/** Runs `action` with a client of the vault's live tree, and closes it. */
export async function withTree<T>(
  location: VaultLocation,
  action: (client: TreeClient) => Promise<T>,
): Promise<T> {
  const client = new TreeClient(location)
  try {
    return await action(client)
  } catch (cause) {
    if (!isProblem(cause, 'vault-not-found')) throw cause
    throw new Problem('vault-not-found', noVaultText(location), { cause })
  } finally {
    await client.close()
  }
}

/** A path of names, for people. */
export function shownPath(names: readonly Buffer[]): string {
  return showPath(Buffer.concat(names.flatMap((name, i) => (i === 0 ? [name] : [Buffer.from('/'), name]))))
}
