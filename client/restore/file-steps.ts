/** What the walk of the tree (tree-restore.ts) tells the writer of files (file-writer.ts). */
import type { Id } from '../../protocol/id.ts'
import type { Problem } from '../../protocol/problem.ts'
import type { Attributes } from '../../protocol/schema.ts'
import type { RestoredDirectory } from './restored-directory.ts'
import type { Piece } from './tree-content.ts'

/** A file to write. Steps refer to it. */
export interface FileJob {
  readonly directory: RestoredDirectory
  readonly name: Buffer
  /** What the temporary file is named after: the same content, the same name. */
  readonly key: string
  readonly size: number
  readonly sparse: boolean
  /** The id of the whole content, where there is more than one chunk and the backup tells it. */
  readonly digest: Id | undefined
  /** Left as the system made them when absent. */
  readonly attributes: Attributes | undefined
  /** An interrupted run left a part of it. */
  readonly resume: boolean
  /** Called when it stands in its place, or with what failed; before its directory is done. */
  readonly finished?: (problem?: Problem) => void
}

export interface ChunkStep {
  readonly kind: 'chunk'
  readonly job: FileJob
  readonly offset: number
  readonly chunk: Piece
  /** It stands in the part of an interrupted run. */
  readonly isThere: boolean
}

/** A file that is one chunk: its only step. */
export interface WholeStep {
  readonly kind: 'whole'
  readonly job: FileJob
  readonly chunk: Piece
}

/** One step of one file. Steps of a file come in order, nothing between. */
export type FileStep =
  | WholeStep
  | ChunkStep
  /** All chunks have come. */
  | { readonly kind: 'end'; readonly job: FileJob }
  /** The list of its chunks could not be read to the end. */
  | { readonly kind: 'broken'; readonly job: FileJob; readonly error: unknown }

/** Several at once: to hand over each by itself would cost more than most files do. */
export type FileSteps = readonly FileStep[]
