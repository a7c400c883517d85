/** COPY out of a snapshot into the tree: the content is in the store already, only records are written. */

import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import { againAfterLoss } from '../catalog/again-after-loss.ts'
import type { DirectoryRecord, Member, TreeRecord } from '../catalog/live-tree.ts'
import { overSignal } from '../http/client-gone.ts'
import type { Context } from '../http/context.ts'
import { pathNames } from '../http/path-names.ts'
import type { Shown } from './dav-view.ts'
import { type Parts, vaultOf } from './parts.ts'
import { SnapshotView } from './snapshot-view.ts'
import { copyTreePath, type OutsideSource } from './tree-transfer.ts'

/** Copies a file or directory of a snapshot, or a whole one, as the snapshot shows it. */
export async function copySnapshotPath(parts: Parts, ctx: Context): Promise<void> {
  const signal = overSignal(ctx)
  const vault = await vaultOf(parts, ctx)
  await againAfterLoss(vault.store, async () => {
    const since = vault.store.losses
    const view = new SnapshotView(vault)
    const shown = await view.find(pathNames(ctx.path, 2), signal)
    if (shown === undefined) throw new Problem('not-found', 'there is nothing at this path')
    await copyTreePath(parts, ctx, new ShownSource(view, shown, since, signal))
  })
}

/** What a view shows, as records. Directories get numbers to be asked for by. */
class ShownSource implements OutsideSource {
  readonly record: TreeRecord
  readonly etag: string | undefined
  readonly since: number
  readonly #view: SnapshotView
  readonly #signal: AbortSignal
  /** Those that were told of and not asked for yet. */
  readonly #directories = new Map<number, Shown>()
  #next = 1

  constructor(view: SnapshotView, shown: Shown, since: number, signal: AbortSignal) {
    this.since = since
    this.#view = view
    this.#signal = signal
    this.record = this.#recordOf(shown)
    this.etag = shown.etag
  }

  async *members({ node }: DirectoryRecord): AsyncGenerator<Member> {
    const directory = this.#directories.get(node)
    this.#directories.delete(node)
    if (directory === undefined) throw new TypeError('a directory is read once, after it was told of')
    for await (const shown of this.#view.members(directory, this.#signal)) {
      yield { name: shown.name, record: this.#recordOf(shown) }
    }
  }

  #recordOf(shown: Shown): TreeRecord {
    const { kind, part } = shown
    const mtimeNs = this.#view.ownMtimeNs(shown)
    const common = { node: this.#next++, version: 0, changed: 0, mtimeNs, createdNs: mtimeNs }
    if (kind === 'file') {
      if (!this.#view.isStored(shown)) {
        throw new Problem('forbidden', 'a stream of several items can be read, but not be copied')
      }
      return { kind, ...common, ...(part as Part) }
    }
    this.#directories.set(common.node, shown)
    return { kind, ...common }
  }
}
