/**
 * Copies into the live tree. A collection grows unseen in `staging`, page by page, and is published by one record;
 * what a stop leaves of it there is cleared away at the next opening. No content is copied.
 */
import { Problem } from '../../protocol/problem.ts'
import { pagesOf } from '../pages.ts'
import type { TreeChange } from './tree-change.ts'
import type { DirectoryRecord, FileRecord, Member, Names, TreeRecord } from './tree-records.ts'

/** Something to copy into the tree, with all that is below it. */
export interface CopySource {
  readonly record: TreeRecord
  /** What is in a directory that was told of before; asked for once. Names in any order, each once. */
  members(directory: DirectoryRecord): AsyncIterable<Member>
}

export interface Copying {
  readonly source: CopySource
  readonly to: Names
  readonly depth: 0 | 'infinity'
  /**
   * The store's `losses` when the source was looked up: its content was there then. Who has the source may remove it
   * meanwhile, so a collection that is under way must be told of the content: `expectHere`. One that begins moves `losses`.
   */
  readonly since: number
  /** Throws what speaks against the copy, when it is published. */
  judge(change: TreeChange): Promise<void>
}

/** What copying needs of the tree. */
export interface CopyInto {
  change<T>(work: (change: TreeChange) => Promise<T>): Promise<T>
  readonly signal: AbortSignal
  /** As in `LiveTreeOptions`. */
  expectHere(files: readonly FileRecord[]): Promise<void>
  onFault(error: unknown): void
}

/** Members copied in one change. */
const copiedAtOnce = 500

/** Copies; what is at the destination goes to the trash. Durable on return; a failure leaves the tree as it was. */
export async function publishCopy(tree: CopyInto, copying: Copying): Promise<'created' | 'replaced'> {
  const { source, to, depth, since, judge } = copying
  const { record } = source
  const isDeep = record.kind === 'directory' && depth === 'infinity'
  const staged = isDeep ? await stage(tree, record, source) : undefined
  try {
    if (record.kind === 'file') await tree.expectHere([record])
    return await tree.change(async (change) => {
      await judge(change)
      const isThere = (await change.find(to)) !== undefined
      if (isThere) await change.remove(to, 'overwritten')
      await change.attachCopy(record, to, since, staged)
      return isThere ? 'replaced' : 'created'
    })
  } catch (error) {
    if (staged !== undefined) await giveUp(tree, staged)
    throw error
  }
}

async function stage(tree: CopyInto, record: DirectoryRecord, source: CopySource): Promise<TreeRecord> {
  const staged = await tree.change((change) => change.stageCopy(record))
  try {
    const waiting = [{ from: record, to: staged.node }]
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const { from, to } = next
      for await (const page of pagesOf(source.members(from), copiedAtOnce)) {
        if (tree.signal.aborted) throw new Problem('unavailable', 'the receiver is stopping')
        await tree.expectHere(page.map(({ record }) => record).filter((record) => record.kind === 'file'))
        waiting.push(...(await tree.change((change) => change.copyMembers(page, to))))
      }
    }
    return staged
  } catch (error) {
    await giveUp(tree, staged)
    throw error
  }
}

/** Clears an unfinished copy away; when that fails, the next opening does it. What the copy failed of counts. */
async function giveUp(tree: CopyInto, staged: TreeRecord): Promise<void> {
  if (tree.signal.aborted) return
  try {
    await tree.change(async (change) => change.dropStaged(staged))
  } catch (error) {
    tree.onFault(error)
  }
}
