/**
 * The ids that were asked about or sent in the name of an open checkpoint: what garbage collection must
 * leave alone though nothing refers to it yet. One file per open checkpoint, of binary ids (33 bytes each)
 * one behind the other, duplicates and all. The highest bit of the first byte is set for a chunk that was looked into
 * and is no object, so that nobody has to read it to learn what it refers to. It is created with the checkpoint and
 * never by an append, so that an append that comes too late finds nothing to append to. Recovery: the file is cut to
 * whole ids.
 *
 * Appends survive kill -9. There is no fsync: after a power cut the end of the log may be missing, and what only it
 * kept may be collected. Then the commit, which walks, finds it gone, and the client sends it again.
 */

import { idBytes, readId, writeId } from '../../protocol/id.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'
import type { TouchedId } from './checkpoint-roots.ts'

const contentBit = 0x80

export function encodeTouched(touched: readonly TouchedId[]): Buffer {
  const bytes = Buffer.allocUnsafe(touched.length * idBytes)
  let offset = 0
  for (const { id, isContent } of touched) {
    const start = offset
    offset = writeId(id, bytes, start)
    if (isContent) bytes[start] = (bytes[start] as number) | contentBit
  }
  return bytes
}

/** Appends; false when there is no such file. Callers exclude each other. */
export async function appendTouched(
  files: FileLayer,
  path: string,
  touched: readonly TouchedId[],
): Promise<boolean> {
  let file: StoreFile
  try {
    file = await files.open(path, 'write')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  try {
    const size = await file.size()
    const end = size - (size % idBytes)
    try {
      await file.write([encodeTouched(touched)], end)
    } catch (error) {
      await file.truncate(end)
      throw error
    }
  } finally {
    await file.close()
  }
  return true
}

/** Cuts off a torn id. Creates the file when there is none. */
export async function recoverTouched(files: FileLayer, path: string): Promise<void> {
  const isThere = (await files.stat(path)) !== undefined
  const file = await files.open(path, isThere ? 'write' : 'create')
  try {
    const size = await file.size()
    if (size % idBytes !== 0) await file.truncate(size - (size % idBytes))
  } finally {
    await file.close()
  }
}

/** Every id in the log behind the first `skipped`, in order, with its duplicates; 4,096 at a time. */
export async function* readTouched(files: FileLayer, path: string, skipped = 0): AsyncGenerator<TouchedId[]> {
  const file = await files.open(path, 'read')
  try {
    const buffer = Buffer.allocUnsafe(4096 * idBytes)
    for (let position = skipped * idBytes; ; ) {
      const bytesRead = await file.read(buffer, position)
      const whole = bytesRead - (bytesRead % idBytes)
      if (whole === 0) return
      const touched: TouchedId[] = []
      for (let offset = 0; offset < whole; offset += idBytes) {
        const first = buffer[offset] as number
        buffer[offset] = first & ~contentBit
        const id = readId(buffer, offset)
        if (id !== undefined) touched.push({ id, isContent: first >= contentBit })
      }
      yield touched
      position += whole
    }
  } finally {
    await file.close()
  }
}
