/**
 * Clears away what is doomed: things that nobody sees any more, with all that is below them. Each step removes a
 * bounded number of records and leaves the rest reachable from `doomed`, so it can end at any moment and go on later.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { TreeDatabase, TreeWrites } from './tree-database.ts'
import { decodeJson, keyChange, keys, nodes, type TreeRecord } from './tree-records.ts'

/** Records removed in one change: clients' changes come in between. */
const rowsAtOnce = 1000
/** What a directory counts for besides: it is searched in five places. */
const rowsOfDirectory = 10

/** Until nothing is doomed, or `signal` is aborted. */
export async function removeDoomed(database: TreeDatabase, signal: AbortSignal): Promise<void> {
  let isDone = false
  while (!isDone && !signal.aborted) {
    await nextTurn()
    isDone = await database.change(removeSome)
  }
}

/** True when nothing is left. */
async function removeSome(writes: TreeWrites): Promise<boolean> {
  const left: Left = { rows: rowsAtOnce, isMore: false }
  for await (const { key, value } of writes.range(keys.entries(nodes.doomed))) {
    if (!(await removeRowsOf(writes, decodeJson<TreeRecord>(value), left))) return false
    writes.remove(key)
  }
  return !left.isMore
}

interface Left {
  /** How many more may be removed in this change. */
  rows: number
  /** More was doomed meanwhile. */
  isMore: boolean
}

/** Removes what stands under its number, as far as `left` lets it; true when that was all. */
async function removeRowsOf(writes: TreeWrites, { node, kind }: TreeRecord, left: Left): Promise<boolean> {
  if (left.rows-- <= 0) return false
  if (kind === 'directory') {
    left.rows -= rowsOfDirectory
    for await (const { key, value } of writes.range(keys.entries(node))) {
      if (left.rows-- <= 0) return false
      writes.remove(key)
      const member = decodeJson<TreeRecord>(value)
      // What has rows of its own is doomed by itself, so that nesting costs no memory.
      if (member.kind === 'directory' || member.dead) {
        writes.put(keys.entry(nodes.doomed, Buffer.from(String(member.node))), value)
        left.isMore = true
      }
    }
    for (const prefix of [keys.changes(node), keys.removals(node)]) {
      for await (const { key } of writes.range(prefix)) {
        if (left.rows-- <= 0) return false
        writes.remove(key)
      }
    }
    writes.remove(keys.frozen(node))
  }
  for await (const { key } of writes.range(keys.properties(node))) writes.remove(key)
  return true
}

/** Forgets which names were removed by changes up to `upTo`, until it is done or `signal` is aborted. */
export async function forgetRemovals(
  database: TreeDatabase,
  upTo: number,
  signal: AbortSignal,
): Promise<void> {
  let old: Buffer[] = []
  const forget = async (): Promise<void> => {
    const forgotten = old
    old = []
    await database.change(async (writes) => {
      for (const key of forgotten) writes.remove(key)
    })
  }
  for await (const { key } of database.range(keys.allRemovals)) {
    if (signal.aborted) return
    if (keyChange(key) <= upTo) old.push(key)
    if (old.length === rowsAtOnce) await forget()
  }
  await forget()
}
