/** Tokens of RFC 6578 as URIs. */
const prefix = 'urn:chunkdav:sync:'

export function formatSyncToken(token: number): string {
  return prefix + token
}

/** The number of a token of ours; undefined for any other. */
export function parseSyncToken(uri: string): number | undefined {
  const match = /^(?:0|[1-9][0-9]{0,14})$/.exec(uri.startsWith(prefix) ? uri.slice(prefix.length) : '')
  return match === null ? undefined : Number(match[0])
}
