/** A bit that flipped in a pack: named, never handed out, healed by sending the chunk again. */
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { assembleBlock, type Block, batchMediaType, parseHeader } from '../../protocol/block.ts'
import type { Id } from '../../protocol/id.ts'
import { startReceiver } from '../support/receiver.ts'
import { begin, blockOf, chunk, noise, post, problemOf, put, smallTree } from './requests.ts'

async function flipBit(dataDir: string, at: Buffer): Promise<void> {
  const packs = join(dataDir, 'vaults/home/packs')
  for (const name of await readdir(packs)) {
    const bytes = await readFile(join(packs, name))
    const offset = bytes.indexOf(at)
    if (offset < 0) continue
    bytes[offset] = (bytes[offset] as number) ^ 1
    await writeFile(join(packs, name), bytes)
    return
  }
  throw new Error('the bytes are in no pack')
}

test.each([['identity'], ['zstd']])('a damaged chunk, asked for as %s', async (encoding) => {
  const item = chunk(noise(50_000, 81))
  const first = await startReceiver({ keep: true })
  await put(first, 'chunks', item)
  await first.stop()
  await flipBit(first.dataDir, item.bytes.subarray(1000, 1100))

  await using second = await startReceiver({ dataDir: first.dataDir })
  const headers = { 'Accept-Encoding': encoding }
  const answer = await fetch(`${second.vaultUrl}/chunks/${item.id}`, { headers })
  const body = (await answer.json()) as { type: string; id: string }
  expect([answer.status, body.type, body.id]).toEqual([500, 'urn:chunkdav:problem:chunk-corrupt', item.id])
  expect(await problemOf(await fetch(`${second.vaultUrl}/chunks/${item.id}`))).toBe('404 chunk-not-found')
  expect((await put(second, 'chunks', item)).status).toBe(201)
  expect((await fetch(`${second.vaultUrl}/chunks/${item.id}`)).status).toBe(200)
  await rm(first.dataDir, { recursive: true })
})

/** Puts another block in the place of a chunk's record, with checksums that are right for it. */
async function replaceBlock(dataDir: string, makeBlock: (was: Block) => Block): Promise<void> {
  const pack = join(dataDir, 'vaults/home/packs/00000001.pack')
  const bytes = await readFile(pack)
  const header = parseHeader(bytes, 16)
  if (header === undefined) throw new Error('no block at the beginning of the pack')
  const other = makeBlock({ header, bytes: bytes.subarray(16, 16 + header.totalBytes) })
  expect(other.bytes.length).toBe(header.totalBytes)
  await writeFile(pack, Buffer.concat([bytes.subarray(0, 16), other.bytes]))
}

const text = Buffer.alloc(3000, 'ab')
const otherText = Buffer.alloc(3000, 'cd')
const frameOf = (bytes: Buffer): Buffer => zstdCompressSync(bytes, { pledgedSrcSize: bytes.length })

test.each([
  ['other bytes under its id', (id: Id) => assembleBlock([{ id, length: 3000 }], 'zstd', frameOf(otherText))],
  [
    'other bytes under their own id',
    () => assembleBlock([{ id: chunk(otherText).id, length: 3000 }], 'zstd', frameOf(otherText)),
  ],
])('%s, with right checksums, are not handed out as a zstd frame', async (_, makeBlock) => {
  const item = chunk(text)
  const first = await startReceiver({ keep: true })
  const sent = { method: 'PUT', body: new Uint8Array(frameOf(text)), headers: { 'Content-Encoding': 'zstd' } }
  expect((await fetch(`${first.vaultUrl}/chunks/${item.id}`, sent)).status).toBe(201)
  await first.stop()
  await replaceBlock(first.dataDir, () => makeBlock(item.id))

  await using second = await startReceiver({ dataDir: first.dataDir })
  const headers = { 'Accept-Encoding': 'zstd' }
  const answer = await fetch(`${second.vaultUrl}/chunks/${item.id}`, { headers })
  expect(await problemOf(answer)).toBe('500 chunk-corrupt')
  expect((await put(second, 'chunks', item)).status).toBe(201)
  await rm(first.dataDir, { recursive: true })
})

test('a tree with a damaged chunk is not committed until it was sent again', async () => {
  const tree = smallTree()
  const first = await startReceiver({ keep: true })
  for (const item of [...tree.chunks, ...tree.objects]) await put(first, 'chunks', item)
  await first.stop()
  await flipBit(first.dataDir, tree.parts[0].bytes.subarray(100, 200))

  await using second = await startReceiver({ dataDir: first.dataDir })
  const fetched = await fetch(`${second.vaultUrl}/dirs/${tree.root.id}/big`)
  expect(await problemOf(fetched)).toBe('500 chunk-corrupt')
  const path = await begin(second, 's', 'dir')
  const refused = await post(second, `${path}/commit`, { root: tree.root.id })
  expect(await refused.json()).toMatchObject({ missing: [{ id: tree.parts[0].id, within: tree.big.id }] })
  await put(second, 'chunks', tree.parts[0])
  expect((await post(second, `${path}/commit`, { root: tree.root.id })).status).toBe(200)
  await rm(first.dataDir, { recursive: true })
})

test('an object that is here and damaged is found out, also right after it was sent once more', async () => {
  const item = chunk(`{"type":"file","pad":"${'x'.repeat(300)}"}`)
  const block = await blockOf([item], 'identity')
  const first = await startReceiver({ keep: true })
  const send = (to: typeof first): Promise<Response> =>
    fetch(`${to.vaultUrl}/chunks/`, {
      method: 'POST',
      body: new Uint8Array(block),
      headers: { 'Content-Type': batchMediaType },
    })
  expect(await (await send(first)).json()).toMatchObject({ outcomes: ['stored'] })
  await first.stop()
  await flipBit(first.dataDir, item.bytes.subarray(100, 200))

  await using second = await startReceiver({ dataDir: first.dataDir })
  expect(await (await send(second)).json()).toMatchObject({ outcomes: ['known'] })
  expect(await problemOf(await fetch(`${second.vaultUrl}/chunks/${item.id}`))).toBe('500 chunk-corrupt')
  await rm(first.dataDir, { recursive: true })
})
