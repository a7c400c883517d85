/**
 * The ids that were asked about or sent in the name of an open checkpoint: what garbage collection must
 * leave alone though nothing refers to it yet. One file per open checkpoint, of binary ids (33 bytes each)
 * one behind the other, duplicates and all. It is created with the checkpoint and never by an append, so
 * that an append that comes too late finds nothing to append to. Recovery: the file is cut to whole ids.
 *
 * Appends survive kill -9. There is no fsync: after a power cut the end of the log may be missing, also of
 * ids whose chunks were durable long before and were only asked about. So garbage collection must not rely
 * on the log of a checkpoint that was open when the machine went down: until such a checkpoint is committed
 * or deleted it keeps everything that was there. A commit needs no log: it walks, and finds what is gone.
 */

import { type Id, idBytes, readId, writeId } from '../../protocol/id.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'

export function encodeTouched(ids: readonly Id[]): Buffer {
  const bytes = Buffer.allocUnsafe(ids.length * idBytes)
  let offset = 0
  for (const id of ids) offset = writeId(id, bytes, offset)
  return bytes
}

/** Appends; false when there is no such file. Callers exclude each other. */
export async function appendTouched(files: FileLayer, path: string, ids: readonly Id[]): Promise<boolean> {
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
      await file.write([encodeTouched(ids)], end)
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

/** Every id in the log, in order, with its duplicates. */
export async function* readTouched(files: FileLayer, path: string): AsyncGenerator<Id> {
  const file = await files.open(path, 'read')
  try {
    const buffer = Buffer.allocUnsafe(4096 * idBytes)
    for (let position = 0; ; ) {
      const bytesRead = await file.read(buffer, position)
      const whole = bytesRead - (bytesRead % idBytes)
      if (whole === 0) return
      for (let offset = 0; offset < whole; offset += idBytes) {
        const id = readId(buffer, offset)
        if (id !== undefined) yield id
      }
      position += whole
    }
  } finally {
    await file.close()
  }
}
