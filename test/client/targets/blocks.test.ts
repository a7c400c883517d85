/** Which chunks share a block when they are sent. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ReceiverClient } from '../../../client/receiver-client.ts'
import { Uploader } from '../../../client/targets/uploader.ts'
import { parseVaultUrl } from '../../../client/vault-url.ts'
import { type Block, type OutgoingBlock, splitBatch } from '../../../protocol/block.ts'
import { hashId } from '../../../protocol/hash.ts'
import { encodeDirectoryObject } from '../../../protocol/objects.ts'
import type { BatchAnswer } from '../../../protocol/schema.ts'
import { startReceiver, type TestReceiver } from '../../support/receiver.ts'

const KiB = 1024
let receiver: TestReceiver

beforeAll(async () => {
  receiver = await startReceiver()
})
afterAll(() => receiver.stop())

/** Looks into what is sent. */
class WatchedClient extends ReceiverClient {
  /** Of each block the lengths of its chunks. */
  readonly sent: number[][] = []

  override async putBatch(
    blocks: readonly (Block | OutgoingBlock)[],
    ...rest: unknown[]
  ): Promise<BatchAnswer> {
    const pieces = blocks.flatMap((block) => ('pieces' in block ? block.pieces : [block.bytes]))
    for (const { header } of splitBatch(Buffer.concat(pieces)))
      this.sent.push(header.rows.map(({ length }) => length))
    return await super.putBatch(blocks, ...(rest as []))
  }
}

const noise = (length: number) => {
  const bytes = Buffer.concat([Buffer.of(0), randomBytes(length - 1)])
  return { id: hashId(bytes), bytes }
}
const directory = (name: string) =>
  encodeDirectoryObject([{ name, type: 'fifo', mode: 0o644, mtime: '0' }] as never)

test('large chunks go alone, small ones in blocks of equal size, objects beside the files that they lie among', async () => {
  const client = new WatchedClient(parseVaultUrl(`${receiver.url}/blocks`))
  await client.createVault()
  const { number } = await client.openCheckpoint('s', { kind: 'dir' })
  const uploader = new Uploader(client, { source: 's', number }, { compressionLevel: 0 })
  const [a, b] = [directory('a'), directory('b')]
  const chunks = [
    noise(10 * KiB),
    a,
    noise(600 * KiB),
    noise(20 * KiB),
    b,
    ...Array.from({ length: 4 }, () => noise(400 * KiB)),
  ]
  expect(await uploader.put(chunks)).toEqual({ sentChunks: chunks.length, reusedChunks: 0 })
  expect(client.sent).toEqual([
    [600 * KiB],
    [10 * KiB, 20 * KiB, 400 * KiB, 400 * KiB],
    [400 * KiB, 400 * KiB],
    [a.bytes.length, b.bytes.length],
  ])
  await uploader.close()
  await client.close()
})
