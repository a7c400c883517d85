/** What the store keeps of decoded blocks takes the memory that it counts for. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { PackChunkStore } from '../../../server/store/pack-chunk-store.ts'
import { storeHashed } from '../../../server/store/receive.ts'
import { chunk, noise } from '../requests.ts'

test.each([
  ['that does not compress', noise(900, 21)],
  ['that does', Buffer.alloc(900, 'x')],
])('a small chunk %s keeps no slab of 64 KiB', async (_, bytes) => {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-decoded-'))
  const store = await PackChunkStore.open(folder)
  try {
    const item = chunk(bytes)
    await storeHashed(store, item.id, item.bytes)
    const read = await store.get(item.id)
    expect(read).toEqual(item.bytes)
    expect(read?.buffer.byteLength).toBeLessThan(4096)
  } finally {
    await store.close()
    await rm(folder, { recursive: true })
  }
})
