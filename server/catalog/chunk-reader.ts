import type { Id } from '../../protocol/id.ts'

/** All that the catalogue needs of a vault's chunks. */
export interface ChunkReader {
  /** Rises when an id that was present no longer is: conclusions from presence are void then. */
  readonly losses: number
  /** How often `losses` rose because a garbage collection began, which loses nothing by itself. */
  readonly collections?: number
  /** Plain length of each id, in order; undefined where absent. */
  stat(ids: readonly Id[]): Promise<(number | undefined)[]>
  /** Verified plain bytes; undefined when absent; Problem `chunk-corrupt` when damaged (then absent). */
  get(id: Id): Promise<Buffer | undefined>
  /** Makes everything durable that was stored before the call. */
  flush(): Promise<void>
}
