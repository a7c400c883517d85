/** Tokens of RFC 6578 as URIs: `urn:chunkdav:sync:{up to}`, and `…:{begun}` where that is another number. */
import type { SyncToken } from '../catalog/live-tree.ts'

const pattern = /^urn:chunkdav:sync:(0|[1-9][0-9]{0,14})(?::([1-9][0-9]{0,14}))?$/

export function formatSyncToken({ upTo, begun }: SyncToken): string {
  return `urn:chunkdav:sync:${upTo}${begun === upTo ? '' : `:${begun}`}`
}

/** The numbers of a token of ours; undefined for any other. */
export function parseSyncToken(uri: string): SyncToken | undefined {
  const match = pattern.exec(uri)
  if (match === null) return undefined
  const [, upTo = '', begun = upTo] = match
  return { upTo: Number(upTo), begun: Number(begun) }
}
