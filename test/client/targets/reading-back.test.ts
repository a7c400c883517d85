/** What a target reads back is hashed, whichever way it came. */
import { expect, test } from 'vitest'
import { ReceiverClient } from '../../../client/receiver-client.ts'
import { DirTarget } from '../../../client/targets/dir-target.ts'
import { parseVaultUrl } from '../../../client/vault-url.ts'
import { collect, sampleBlock, sampleChunk, unverifiedBlock } from '../../conformance/chunk-store-suite.ts'
import { startReceiver } from '../../support/receiver.ts'

const [asked, other] = [sampleChunk(500), sampleChunk(500)]

/** Each replaces how the client fetches. */
const lies: Record<string, (client: ReceiverClient) => void> = {
  'a block of other bytes': (client) => {
    client.fetch = async function* () {
      yield await unverifiedBlock([{ id: asked.id, bytes: other.bytes }])
    }
  },
  'a chunk of other bytes, by itself': (client) => {
    client.fetch = async function* () {}
    client.getChunk = async () => other.bytes
  },
  'a block of another chunk, and then nothing': (client) => {
    client.fetch = async function* () {
      yield await sampleBlock([other])
    }
    client.getChunk = async () => Buffer.alloc(0)
  },
}

for (const [lie, tell] of Object.entries(lies)) {
  test(`${lie}: digest-mismatch`, async () => {
    await using receiver = await startReceiver()
    const client = new ReceiverClient(parseVaultUrl(receiver.vaultUrl))
    const target = new DirTarget(client, 'test')
    try {
      await target.begin(undefined, {})
      await target.put([asked])
      expect((await collect(target.read([asked.id])))[0]?.bytes.equals(asked.bytes)).toBe(true)
      tell(client)
      await expect(collect(target.read([asked.id]))).rejects.toMatchObject({ code: 'digest-mismatch' })
    } finally {
      await target.close()
    }
  })
}
