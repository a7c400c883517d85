/**
 * What changed directly in a collection since a client asked last: RFC 6578.
 *
 * Changes have numbers that count up. A client's token says up to which change it knows the collection. A client
 * that knew nothing, and takes a long first answer in pieces, knows the entries that were changed up to one number
 * and no name that was gone at another, which is higher: the last change when it began.
 */
import { findRecord } from './tree-change.ts'
import type { TreeReads } from './tree-database.ts'
import {
  decodeJson,
  keyChange,
  keys,
  type Member,
  type Names,
  type TreeRecord,
  type TreeState,
} from './tree-records.ts'

export interface SyncToken {
  /** The client knows the entries whose last change was up to this one. */
  readonly upTo: number
  /** The client knows no name that was gone at this change. At least `upTo`. */
  readonly begun: number
}

export interface Changes {
  readonly changed: readonly Member[]
  /** Names that are gone. */
  readonly removed: readonly Buffer[]
  /** What to ask with next time. */
  readonly token: SyncToken
  /** There is more: ask again with the token. */
  readonly isCut: boolean
}

interface Change {
  readonly number: number
  readonly name: Buffer
  /** Undefined for a name that is gone. */
  readonly record: TreeRecord | undefined
}

/**
 * The changes in the collection at `names` after `since`, oldest first, at most `limit`; undefined when the token is
 * none of ours, when another collection stood at the path then, when it is so old that removals may have been
 * forgotten, or when there is no collection. `reads` is one state.
 */
export async function changesIn(
  reads: TreeReads,
  names: Names,
  since: SyncToken | undefined,
  limit: number,
): Promise<Changes | undefined> {
  const { change, forgotten } = await stateOf(reads)
  const last = change - 1
  const directory = await findRecord(reads, names)
  if (directory?.kind !== 'directory') return undefined
  if (since !== undefined) {
    const { upTo, begun } = since
    if (upTo > begun || begun > last || begun < Math.max(forgotten, directory.placed ?? 0)) return undefined
  }
  const after = since?.upTo ?? 0
  // One more than is told, to know whether there is more.
  const changed = await changedAfter(reads, directory.node, after, limit + 1)
  const removed = since === undefined ? [] : await removedAfter(reads, directory.node, since.begun, limit + 1)
  const all = [...changed, ...removed].sort((a, b) => a.number - b.number)
  const told = all.slice(0, limit)
  const isCut = told.length < all.length
  const upTo = isCut ? (told.at(-1) as Change).number : last
  const begun = Math.max(upTo, since?.begun ?? last)
  return {
    changed: told.flatMap(({ name, record }) => (record === undefined ? [] : [{ name, record }])),
    removed: told.flatMap(({ name, record }) => (record === undefined ? [name] : [])),
    token: { upTo, begun },
    isCut,
  }
}

export async function stateOf(reads: TreeReads): Promise<TreeState> {
  return decodeJson<TreeState>((await reads.get(keys.state)) as Buffer)
}

async function changedAfter(reads: TreeReads, node: number, after: number, limit: number): Promise<Change[]> {
  const found: Change[] = []
  for await (const { key, value: name } of reads.range(keys.changes(node), keys.change(node, after))) {
    const entry = (await reads.get(keys.entry(node, name))) as Buffer
    found.push({ number: keyChange(key), name, record: decodeJson<TreeRecord>(entry) })
    if (found.length === limit) break
  }
  return found
}

/** Names that are gone since, each once. */
async function removedAfter(reads: TreeReads, node: number, after: number, limit: number): Promise<Change[]> {
  const found = new Map<string, Change>()
  for await (const { key, value: name } of reads.range(keys.removals(node), keys.removal(node, after))) {
    const text = name.toString('latin1')
    if (found.has(text) || (await reads.get(keys.entry(node, name))) !== undefined) continue
    found.set(text, { number: keyChange(key), name, record: undefined })
    if (found.size === limit) break
  }
  return [...found.values()]
}
