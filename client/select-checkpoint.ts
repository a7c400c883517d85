/** Which checkpoint a person means. */
import { Problem } from '../protocol/problem.ts'
import type { CheckpointState } from '../protocol/schema.ts'
import { parseSourceName } from '../protocol/url.ts'

/** Where backups are listed: a vault, or a place on a WebDAV server. */
export interface CheckpointLister {
  /** `shown`: the URL without user and password. */
  readonly location: { readonly shown: string }
  sources(options?: { signal?: AbortSignal | undefined }): Promise<string[]>
  listCheckpoints(source: string, options?: { signal?: AbortSignal | undefined }): Promise<CheckpointState[]>
}

/** The source that was named, or the only one there is; Problem `usage` when there are several. */
export async function selectSource(
  client: CheckpointLister,
  source: string | undefined,
  signal?: AbortSignal,
): Promise<string> {
  if (source !== undefined) return parseSourceName(source)
  const sources = await client.sources({ signal })
  const [only, ...others] = sources
  if (only === undefined) {
    throw new Problem('checkpoint-not-found', `there are no backups in ${client.location.shown} yet`)
  }
  if (others.length === 0) return only
  throw new Problem(
    'usage',
    `${client.location.shown} has several sources; add --source with one of: ${sources.join(', ')}`,
  )
}

/** The committed checkpoint `number` of the source, or the latest one; Problem `checkpoint-not-found`. */
export async function selectCheckpoint(
  client: CheckpointLister,
  source: string,
  number: number | 'latest',
  signal?: AbortSignal,
): Promise<CheckpointState> {
  const all = await client.listCheckpoints(source, { signal })
  const committed = all.filter((checkpoint) => checkpoint.state === 'committed')
  const found = number === 'latest' ? committed.at(-1) : committed.find((each) => each.number === number)
  if (found !== undefined) return found
  if (committed.length === 0) throw await noBackupOf(source, client, signal)
  const open = all.some((checkpoint) => checkpoint.number === number)
  const numbers = committed.map((checkpoint) => checkpoint.number)
  const shown = numbers.length > 10 ? `${numbers[0]} … ${numbers.slice(-8).join(', ')}` : numbers.join(', ')
  throw new Problem(
    'checkpoint-not-found',
    `checkpoint ${number} of ${source} ${open ? 'is not finished' : 'does not exist'}; there are: ${shown}`,
  )
}

/** The Problem of a source that has no backup in the vault: it names those that are there. */
export async function noBackupOf(
  source: string,
  client: CheckpointLister,
  signal?: AbortSignal,
): Promise<Problem> {
  const sources = (await client.sources({ signal })).filter((other) => other !== source)
  const known = sources.length === 0 ? '' : `; the vault has: ${sources.join(', ')}`
  const text = `${source} has no finished backup in ${client.location.shown}${known}`
  return new Problem('checkpoint-not-found', text)
}
