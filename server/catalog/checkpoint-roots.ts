/** What checkpoints keep: the roots of garbage collection, as far as they are checkpoints. */
import type { Id } from '../../protocol/id.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import type { FileLayer } from '../file-layer.ts'
import type { CheckpointFolder } from './checkpoint-folder.ts'
import { itemPages } from './item-list.ts'
import { type Wanted, wantedItem, wantedRoot } from './wanted.ts'

/** An id that was asked about or sent in the name of an open checkpoint. */
export interface TouchedId {
  readonly id: Id
  /** It was looked into when it came, and is no object: nothing is below it. */
  readonly isContent: boolean
}

/** One checkpoint. What it yields is read from its files as it goes, in pages. */
export interface CheckpointRoots {
  readonly name: CheckpointName
  /** Everything that it reaches was there when it was committed. Of an open one only some may be here. */
  readonly isCommitted: boolean
  /** Its root directory, or its items. */
  references(): AsyncIterable<readonly Wanted[]>
  /** Of an open one, in order, without the first `skipped`. */
  touched(skipped: number): AsyncIterable<readonly TouchedId[]>
}

/** Of a committed one. */
export function committedRoots(
  files: FileLayer,
  folder: CheckpointFolder,
  state: CheckpointState,
): CheckpointRoots {
  const { source, number, root, items = 0 } = state
  const path = folder.itemsPath(number)
  const references = async function* (): AsyncGenerator<Wanted[]> {
    if (root !== undefined) yield [wantedRoot(root)]
    if (items === 0) return
    for await (const page of itemPages(files, path, items)) yield page.map(wantedItem)
  }
  const isThere = async (): Promise<boolean> => (await folder.readCommitted(number)) !== undefined
  return {
    name: { source, number },
    isCommitted: true,
    references: () => whileThere(references, isThere),
    touched: async function* () {},
  }
}

/** The pages, until what they are read from was deleted. */
export async function* whileThere<T>(
  pages: () => AsyncIterable<T>,
  isThere: () => boolean | Promise<boolean>,
): AsyncGenerator<T> {
  try {
    yield* pages()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || (await isThere())) throw error
  }
}
