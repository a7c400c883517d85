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
import { crc32 } from 'node:zlib'
import { idBytes, readId, writeId } from '../../protocol/id.ts'
import { Problem } from '../../protocol/problem.ts'
import type { Part } from '../../protocol/schema.ts'
import type { FileLayer, StoreFile } from '../file-layer.ts'

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

/** Items `first` to `first + count`, which are there. Problem `store-corrupt` where they are not, or are damaged. */
export async function readItems(
  files: FileLayer,
  path: string,
  first: number,
  count: number,
): Promise<Part[]> {
  const file = await files.open(path, 'read')
  try {
    return await readAt(file, path, first, count)
  } finally {
    await file.close()
  }
}

async function readAt(file: StoreFile, path: string, first: number, count: number): Promise<Part[]> {
  const buffer = Buffer.allocUnsafe(count * itemBytes)
  const bytesRead = await file.read(buffer, first * itemBytes)
  const items = decodeItems(buffer.subarray(0, bytesRead))
  if (items.length < count) {
    const how = items.length < Math.floor(bytesRead / itemBytes) ? 'damaged' : 'cut short'
    throw new Problem('store-corrupt', `the item list ${path} is ${how} at item ${first + items.length}`)
  }
  return items
}

/** The first `total` items, in pages. Problem `store-corrupt` at the page where there are fewer, or a damaged one. */
export async function* itemPages(files: FileLayer, path: string, total: number): AsyncGenerator<Part[]> {
  const file = await files.open(path, 'read')
  try {
    for (let first = 0; first < total; first += pageItems) {
      yield await readAt(file, path, first, Math.min(pageItems, total - first))
    }
  } finally {
    await file.close()
  }
}

/**
 * Opens after a stop of any kind: cuts off what is not whole; tells how many items stand, and their bytes.
 * Problem `store-corrupt` when there is no list.
 */
export async function recoverItems(
  files: FileLayer,
  path: string,
): Promise<{ count: number; contentBytes: number }> {
  const file = await files.open(path, 'write').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new Problem('store-corrupt', `the item list ${path} is gone`, { cause })
  })
  try {
    const size = await file.size()
    const buffer = Buffer.allocUnsafe(pageItems * itemBytes)
    let count = 0
    let contentBytes = 0
    for (;;) {
      const bytesRead = await file.read(buffer, count * itemBytes)
      const items = decodeItems(buffer.subarray(0, bytesRead))
      count += items.length
      contentBytes += items.reduce((sum, item) => sum + item.size, 0)
      if (items.length < pageItems) break
    }
    if (size !== count * itemBytes) {
      await file.truncate(count * itemBytes)
      // Or else a power cut could bring records back behind those that take the place of the first that was cut off.
      await file.datasync()
    }
    return { count, contentBytes }
  } finally {
    await file.close()
  }
}

/** Writes `items` behind the first `count`. When it fails the list is as before. Callers exclude each other. */
export async function appendItems(
  files: FileLayer,
  path: string,
  count: number,
  items: readonly Part[],
): Promise<void> {
  const file = await files.open(path, 'write')
  try {
    try {
      await file.write([encodeItems(items)], count * itemBytes)
    } catch (error) {
      await file.truncate(count * itemBytes)
      throw error
    }
  } finally {
    await file.close()
  }
}

/** Makes the list durable. */
export async function syncItems(files: FileLayer, path: string): Promise<void> {
  const file = await files.open(path, 'write')
  try {
    await file.datasync()
  } finally {
    await file.close()
  }
}
