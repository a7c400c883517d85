/**
 * How backups stand on a WebDAV server, below the folder that the URL names:
 *
 *     {source}/{n}/files/…              a checkpoint: its tree as plain files
 *     {source}/{n}/manifest.jsonl.zst   what plain files cannot hold (webdav-manifest.ts)
 *     {source}/{n}.partial/             the same while it is open
 *
 * A checkpoint is committed by renaming its folder, when everything is in it: who sees `{n}` sees all of it.
 * Whatever else is there is nobody's business.
 */
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import { parseCheckpointNumber } from '../../protocol/url.ts'
import type { TransportCounters } from '../http.ts'
import type { WebDavClient } from './webdav-client.ts'
import { FetchedManifest, headIn, manifestName } from './webdav-manifest.ts'
import type { WebDavLocation } from './webdav-url.ts'

/** The first line of a manifest is in here, whatever the compression. */
const headBytes = 64 * 1024
const openSuffix = '.partial'
/** What may stand in an open checkpoint's folder beside its files: whose it is, and a directory on its way. */
export const claimPrefix = 'claim-'
export const asidePrefix = 'aside-'
const sourceGrammar = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

export function sourceFolder(source: string): string {
  return `${source}/`
}

export function committedFolder(source: string, number: number): string {
  return `${source}/${number}/`
}

export function openFolder(source: string, number: number): string {
  return `${source}/${number}${openSuffix}/`
}

/** Folders of one source's checkpoints, by number, with the time of their last change. */
export interface FoundCheckpoints {
  readonly committed: ReadonlyMap<number, number | undefined>
  readonly open: ReadonlyMap<number, number | undefined>
}

/** What stands in a source's folder; undefined when there is no such folder. */
export async function findCheckpoints(
  client: WebDavClient,
  source: string,
  signal?: AbortSignal,
): Promise<FoundCheckpoints | undefined> {
  const members = await client.list(sourceFolder(source), { signal })
  if (members === undefined) return undefined
  const committed = new Map<number, number | undefined>()
  const open = new Map<number, number | undefined>()
  for (const { name, isCollection, modifiedMs } of members) {
    const text = name.toString('latin1')
    const isOpen = text.endsWith(openSuffix)
    const number = parseCheckpointNumber(isOpen ? text.slice(0, -openSuffix.length) : text)
    if (isCollection && number !== undefined) (isOpen ? open : committed).set(number, modifiedMs)
  }
  return { committed, open }
}

/** The manifest of a checkpoint, to be closed. Problem `checkpoint-not-found` that says what can be done without. */
export async function fetchManifest(
  client: WebDavClient,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<FetchedManifest> {
  try {
    return await client.retried(signal, async () => {
      const { body } = await client.get(committedFolder(source, number) + manifestName, { signal })
      return FetchedManifest.of(body)
    })
  } catch (error) {
    if (isProblem(error, 'not-found')) throw withoutManifest(client.location, source, number, error)
    throw error
  }
}

function withoutManifest(location: WebDavLocation, source: string, number: number, cause: unknown): Problem {
  const folder = `${location.shown.replace(/^webdav\+/, '')}/${committedFolder(source, number)}`
  const text =
    `checkpoint ${number} of ${source} has lost its ${manifestName}, without which modes, owners, times and links ` +
    `are not known; its files can be copied from ${folder}files/ by any means, or restore another checkpoint`
  return new Problem('checkpoint-not-found', text, { cause })
}

/** The backups on a WebDAV server, as restore and the commands that list them read them. */
export class WebDavBackups {
  readonly client: WebDavClient

  /** The client stays the caller's until `close`, which closes it. */
  constructor(client: WebDavClient) {
    this.client = client
  }

  get location(): WebDavLocation {
    return this.client.location
  }

  get counters(): Readonly<TransportCounters> {
    return this.client.counters
  }

  /** The sources that have backups, in order of their names. */
  async sources({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<string[]> {
    const members = await this.client.list('', { signal })
    if (members === undefined) {
      throw new Problem('not-found', `there is no folder ${this.location.shown}; check the URL`)
    }
    const names = members.flatMap(({ name, isCollection }) => (isCollection ? [name.toString('latin1')] : []))
    const sources: string[] = []
    // The folder may hold other things too.
    for (const name of names.filter((each) => sourceGrammar.test(each) && !each.includes('..')).sort()) {
      const found = await findCheckpoints(this.client, name, signal)
      if (found !== undefined && found.committed.size + found.open.size > 0) sources.push(name)
    }
    return sources
  }

  /** A source's checkpoints, ascending, open ones too; without `root` where the manifest cannot be read. */
  async listCheckpoints(
    source: string,
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<CheckpointState[]> {
    const found = await findCheckpoints(this.client, source, signal)
    const states: CheckpointState[] = []
    for (const [number, modifiedMs] of found?.committed ?? []) {
      const known = await readHead(this.client, source, number, signal)
      states.push(known ?? bareState(source, number, 'committed', modifiedMs))
    }
    for (const [number, modifiedMs] of found?.open ?? []) {
      if (!found?.committed.has(number)) states.push(bareState(source, number, 'open', modifiedMs))
    }
    return states.sort((a, b) => a.number - b.number)
  }

  /** The manifest of a committed checkpoint, to be closed by the caller. */
  manifest(source: string, number: number, signal?: AbortSignal): Promise<FetchedManifest> {
    return fetchManifest(this.client, source, number, signal)
  }

  /** Ends connections. Idempotent. */
  close(): Promise<void> {
    return this.client.close()
  }
}

function bareState(
  source: string,
  number: number,
  state: 'open' | 'committed',
  modifiedMs: number | undefined,
): CheckpointState {
  return { source, number, kind: 'dir', state, openedAt: new Date(modifiedMs ?? 0).toISOString() }
}

/** What a manifest's first line says of its checkpoint; undefined when there is none, or it is damaged. */
export async function readHead(
  client: WebDavClient,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<CheckpointState | undefined> {
  try {
    const path = committedFolder(source, number) + manifestName
    const stretch = { first: 0, bytes: headBytes }
    const state = await headIn(await client.read(path, { maxBytes: headBytes, stretch, signal }))
    if (state.source === source && state.number === number) return state
    // Renamed by hand: it is called what its folder is called.
    return { ...state, source, number }
  } catch (error) {
    if (isProblem(error, 'not-found') || isProblem(error, 'invalid-object')) return undefined
    throw error
  }
}
