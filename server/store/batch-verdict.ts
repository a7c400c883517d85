/**
 * Whether what a batch says of itself is true: each block's checksum, then, block by block, what it decodes to and the
 * hash of every chunk. Works at once and may take long: verifying-thread.ts does it where nobody waits for the thread.
 */
import { type Block, discard, sliceRow, splitBatch, verifyBlockNow } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { mayBeObject } from '../../protocol/may-be-object.ts'
import { encodeProblem, isProblem, type Problem } from '../../protocol/problem.ts'
import type { BatchAnswer } from '../../protocol/schema.ts'

export interface BatchVerdict {
  /** The places of the blocks that are refused, in order. All other blocks are what they say. */
  readonly refused: readonly number[]
  /** Of the first of these, what the answer says of the chunk that is false. */
  readonly problems: BatchAnswer['problems']
  /** Chunks that look like file or directory objects, of blocks that are not refused: who keeps one must look what it refers to. */
  readonly objects: readonly FoundObject[]
}

/** The bytes are left out where there would be too many, and of what is no object by its beginning. */
export interface FoundObject {
  readonly id: Id
  readonly bytes?: Uint8Array
}

/** From so many on reasons say nothing new, but would make an answer several times as long as the batch. */
const maxListedProblems = 1000
/** Most lists are a quarter of that. What is longer, or comes when a batch has brought more, is read again when it is wanted. */
const maxObjectBytes = 1024 * 1024
const maxObjectsBytes = 4 * 1024 * 1024
/** What each of them costs beside its bytes, in memory and on the way from thread to thread. */
const objectCost = 400
/** How objects begin that this project writes. */
const starts = ['{"type":"directory"', '{"type":"file"'].map((start) => Buffer.from(start))

/** One step for each block, which says whether it is refused, and the verdict. Problem `invalid-batch` from the first step. */
export function* judgeBatch(body: Buffer): Generator<boolean, BatchVerdict> {
  const refused: number[] = []
  const problems: BatchAnswer['problems'] = []
  const objects: FoundObject[] = []
  let roomBytes = maxObjectsBytes
  for (const [index, block] of splitBatch(body).entries()) {
    try {
      for (const object of objectsOf(block, roomBytes)) {
        objects.push(object)
        if (object.bytes !== undefined) roomBytes -= object.bytes.length + objectCost
      }
    } catch (cause) {
      if (!isProblem(cause)) throw cause
      refused.push(index)
      if (problems.length < maxListedProblems) problems.push(refusalOf(block, cause))
    }
    yield refused.at(-1) === index
  }
  return { refused, problems, objects }
}

function objectsOf(block: Block, roomBytes: number): FoundObject[] {
  const plain = verifyBlockNow(block)
  const objects: FoundObject[] = []
  let leftBytes = roomBytes
  for (const row of block.header.rows) {
    const bytes = sliceRow(plain, row)
    if (!mayBeObject(bytes)) continue
    const isCarried = row.length <= Math.min(maxObjectBytes, leftBytes - objectCost) && isWrittenByUs(bytes)
    if (isCarried) leftBytes -= row.length + objectCost
    objects.push(isCarried ? { id: row.id, bytes: new Uint8Array(bytes) } : { id: row.id })
  }
  if (block.header.encoding !== 'identity') discard(plain)
  return objects
}

function isWrittenByUs(bytes: Buffer): boolean {
  return starts.some((start) => bytes.subarray(0, start.length).equals(start))
}

/** The chunk that is false, or the first if all of the block is. */
function refusalOf({ header }: Block, problem: Problem): BatchAnswer['problems'][number] {
  const { type } = encodeProblem(problem)
  return { id: (problem.extensions.id ?? header.rows[0]?.id) as Id, type, detail: problem.message }
}
