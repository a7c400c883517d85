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

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { type Id, idBytes, readId, writeId } from '../../protocol/id.ts'

export function encodeTouched(ids: readonly Id[]): Buffer {
  const bytes = Buffer.allocUnsafe(ids.length * idBytes)
  let offset = 0
  for (const id of ids) offset = writeId(id, bytes, offset)
  return bytes
}

/** Appends; false when there is no such file. Callers exclude each other. */
export async function appendTouched(path: string, ids: readonly Id[]): Promise<boolean> {
  let handle: Awaited<ReturnType<typeof open>>
  try {
    handle = await open(path, constants.O_WRONLY | constants.O_APPEND)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  try {
    await handle.appendFile(encodeTouched(ids))
  } catch (error) {
    const { size } = await handle.stat()
    await handle.truncate(size - (size % idBytes))
    throw error
  } finally {
    await handle.close()
  }
  return true
}

/** Cuts off a torn id. Creates the file when there is none. */
export async function recoverTouched(path: string): Promise<void> {
  const handle = await open(path, 'a')
  try {
    const { size } = await handle.stat()
    if (size % idBytes !== 0) await handle.truncate(size - (size % idBytes))
  } finally {
    await handle.close()
  }
}

/** Every id in the log, in order, with its duplicates. */
export async function* readTouched(path: string): AsyncGenerator<Id> {
  const handle = await open(path, 'r')
  try {
    const buffer = Buffer.allocUnsafe(4096 * idBytes)
    for (let position = 0; ; ) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position)
      const whole = bytesRead - (bytesRead % idBytes)
      if (whole === 0) return
      for (let offset = 0; offset < whole; offset += idBytes) {
        const id = readId(buffer, offset)
        if (id !== undefined) yield id
      }
      position += whole
    }
  } finally {
    await handle.close()
  }
}
