import { cutParameters } from '../../protocol/cut.ts'
import { createSearchedMemory, gearSearchBytes, type SearchedMemory } from '../../protocol/gear-search.ts'

/**
 * Buffers that the reading threads fill and the main thread sends, in memory that all of them share:
 * nothing is copied or allocated on the way, and the pool's size is the bound on content in memory.
 * It is memory of WebAssembly, in which content is searched for cuts where it stands.
 *
 *     control[0]      rises with each buffer given back; who finds none free sleeps on it
 *     control[1 + i]  1 while buffer i is held
 *
 * A buffer is held from `take` on a reading thread until `give` on either side, exactly once.
 */
export interface SharedBuffers {
  readonly memory: SearchedMemory
  readonly control: Int32Array
  readonly bufferBytes: number
}

/** A largest chunk: it stands in one buffer, and what a file's chunks leave of a buffer goes to the front of the next. */
export const readBufferBytes = cutParameters.maxChunkBytes

/** A pool of `count` buffers of `bufferBytes` each. Memory is used when it is first written. */
export function createBuffers(count: number, bufferBytes: number): SharedBuffers {
  return {
    memory: createSearchedMemory(count * bufferBytes),
    control: new Int32Array(new SharedArrayBuffer(4 * (count + 1))),
    bufferBytes,
  }
}

/** Buffer `index`, or a stretch of it. */
export function bufferAt(
  buffers: SharedBuffers,
  index: number,
  offset = 0,
  length = buffers.bufferBytes,
): Buffer {
  return Buffer.from(buffers.memory.buffer, placeOf(buffers, index) + offset, length)
}

/** Where a buffer begins in the memory. */
export function placeOf({ bufferBytes }: SharedBuffers, index: number): number {
  return gearSearchBytes + index * bufferBytes
}

/** Takes a free buffer, sleeping until there is one; undefined once `cancelled` says so. For threads that may sleep. */
export function takeBuffer(buffers: SharedBuffers, cancelled: () => boolean): number | undefined {
  const { control } = buffers
  for (;;) {
    const seen = Atomics.load(control, 0)
    for (let index = 0; index + 1 < control.length; index++) {
      if (Atomics.compareExchange(control, index + 1, 0, 1) === 0) return index
    }
    if (cancelled()) return undefined
    Atomics.wait(control, 0, seen, 200)
  }
}

export function giveBuffer({ control }: SharedBuffers, index: number): void {
  Atomics.store(control, index + 1, 0)
  Atomics.add(control, 0, 1)
  Atomics.notify(control, 0)
}
