/** What checkpoints keep: the roots of garbage collection, as far as they are checkpoints. */
import type { Id } from '../../protocol/id.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import type { Wanted } from './wanted.ts'

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
