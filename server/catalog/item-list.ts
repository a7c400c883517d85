/**
 * The item list of a `chunks` checkpoint, as a file that only grows. A record per item, 46 bytes,
 * integers little-endian:
 *
 *     offset  size  field
 *          0    33  id, in binary form
 *         33     1  1 when the item is a file object (`chunked`), else 0
 *         34     8  size in bytes
 *         42     4  CRC-32 of bytes 0..41
 *
 * Invariant: item i stands at byte 46·i. Recovery: opening keeps the records up to the first that is torn
 * or wrong and cuts off the rest; the client repeats what was cut off. Appends survive kill -9; a power
 * cut only after `sync`.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { idBytes, readId, writeId } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'

export const itemBytes = 46
/** Records that are read at once when the whole list is read. */
const pageItems = 4096

export function encodeItems(items: readonly Part[]): Buffer {
  const bytes = Buffer.alloc(items.length * itemBytes)
  items.forEach((item, position) => {
    const start = position * itemBytes
    const at = writeId(item.id, bytes, start)
    bytes[at] = item.chunked === true ? 1 : 0
    bytes.writeBigUInt64LE(BigInt(item.size), at + 1)
    bytes.writeUInt32LE(crc32(bytes.subarray(start, start + itemBytes - 4)), start + itemBytes - 4)
  })
  return bytes
}

/** The items of whole and right records, up to the first that is not. */
export function decodeItems(bytes: Buffer): Part[] {
  const items: Part[] = []
  for (let start = 0; start + itemBytes <= bytes.length; start += itemBytes) {
    const record = bytes.subarray(start, start + itemBytes)
    const id = readId(record)
    if (id === undefined || record.readUInt32LE(itemBytes - 4) !== crc32(record.subarray(0, itemBytes - 4)))
      break
    const size = Number(record.readBigUInt64LE(idBytes + 1))
    items.push(record[idBytes] === 1 ? { id, size, chunked: true } : { id, size })
  }
  return items
}

/** Items `first` to `first + count`, fewer at the end of the list. Problem `internal-error` where the file is damaged. */
export async function readItems(path: string, first: number, count: number): Promise<Part[]> {
  const handle = await open(path, 'r')
  try {
    return await readAt(handle, first, count)
  } finally {
    await handle.close()
  }
}

async function readAt(handle: FileHandle, first: number, count: number): Promise<Part[]> {
  const buffer = Buffer.allocUnsafe(count * itemBytes)
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, first * itemBytes)
  const items = decodeItems(buffer.subarray(0, bytesRead))
  if (items.length < Math.floor(bytesRead / itemBytes)) {
    throw new Problem('internal-error', `the item list is damaged at item ${first + items.length}`)
  }
  return items
}

/** The whole list in pages, at most `total` items. */
export async function* itemPages(path: string, total: number): AsyncGenerator<Part[]> {
  const handle = await open(path, 'r')
  try {
    for (let first = 0; first < total; first += pageItems) {
      yield await readAt(handle, first, Math.min(pageItems, total - first))
    }
  } finally {
    await handle.close()
  }
}

/**
 * Opens after a stop of any kind: cuts off what is not whole; tells how many items stand, and their bytes.
 * Problem `store-corrupt` when there is no list.
 */
export async function recoverItems(path: string): Promise<{ count: number; contentBytes: number }> {
  const handle = await open(path, 'r+').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new Problem('store-corrupt', `the item list ${path} is gone`, { cause })
  })
  try {
    const { size } = await handle.stat()
    const buffer = Buffer.allocUnsafe(pageItems * itemBytes)
    let count = 0
    let contentBytes = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, count * itemBytes)
      const items = decodeItems(buffer.subarray(0, bytesRead))
      count += items.length
      contentBytes += items.reduce((sum, item) => sum + item.size, 0)
      if (items.length < pageItems) break
    }
    if (size !== count * itemBytes) await handle.truncate(count * itemBytes)
    return { count, contentBytes }
  } finally {
    await handle.close()
  }
}

/** Writes `items` behind the first `count`. When it fails the list is as before. Callers exclude each other. */
export async function appendItems(path: string, count: number, items: readonly Part[]): Promise<void> {
  const handle = await open(path, 'r+')
  try {
    const bytes = encodeItems(items)
    try {
      await writeWhole(handle, bytes, count * itemBytes)
    } catch (error) {
      await handle.truncate(count * itemBytes)
      throw error
    }
  } finally {
    await handle.close()
  }
}

async function writeWhole(handle: FileHandle, bytes: Buffer, start: number): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, start + done)
    done += bytesWritten
  }
}

/** Makes the list durable. */
export async function syncItems(path: string): Promise<void> {
  const handle = await open(path, 'r+')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
