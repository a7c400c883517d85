/**
 * The memory in which the event loop lays down an upload's bytes and a thread cuts them into chunks.
 *
 *     0                4 MiB                          4 MiB + ringBytes
 *     | headroom       | ring                         |
 *
 * Byte n of the content goes to offset n mod ringBytes of the ring. A chunk must stand in one piece, so when
 * the ring begins anew, the thread copies what it has of the open chunk, always less than a largest one, to
 * the end of the headroom, right in front of the bytes that follow.
 *
 * Invariant: a byte is written over only when every chunk up to and including its own is done with. Since
 * a lap's first byte belongs to the chunk that stands in the headroom, that holds for the headroom too.
 */
import { cutParameters } from '../../protocol/cut.ts'

export const headroomBytes = cutParameters.maxChunkBytes
/** A largest chunk that is still open, and as much again that is being stored or comes in. */
export const ringBytes = 2 * cutParameters.maxChunkBytes
export const windowBytes = headroomBytes + ringBytes

/** Memory is used when it is first written: a short upload never touches most of it. */
export type CuttingWindow = SharedArrayBuffer

export function createWindow(): CuttingWindow {
  return new SharedArrayBuffer(windowBytes)
}

/** Where byte `position` of the content goes, and how many may follow it before the ring begins anew. */
export function placeOf(position: number): { offset: number; room: number } {
  const inRing = position % ringBytes
  return { offset: headroomBytes + inRing, room: ringBytes - inRing }
}
