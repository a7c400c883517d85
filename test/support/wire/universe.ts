/** What the fuzzer's valid requests are about: contents that are there, contents that may be sent, and what must stay as it is. */
import { hashId } from '../../../protocol/hash.ts'
import type { Id } from '../../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject, encodeFileObject } from '../../../protocol/objects.ts'
import { compress } from '../../../protocol/zstd.ts'
import { attributes, blockOf, chunk, directoryEntry, fileEntry, noise } from '../../server/requests.ts'

/** Stands in everything that the fuzzer's users must never be told. */
export const secret = 'SENTINEL-SECRET'
/** The vault that it works in, and the one that must stay as it is. */
export const playground = 'fuzz'
export const sentinel = 'sentinel'

export interface Delta {
  readonly base: Id
  readonly id: Id
  readonly bytes: Buffer
}

export interface Universe {
  readonly chunks: readonly EncodedObject[]
  readonly files: readonly EncodedObject[]
  readonly directories: readonly EncodedObject[]
  /** Not there at first. */
  readonly fresh: readonly EncodedObject[]
  readonly batches: readonly Buffer[]
  readonly deltas: readonly Delta[]
  /** JSON patches that make one directory, or one file, of another. */
  readonly patches: { readonly dirs: readonly Delta[]; readonly files: readonly Delta[] }
  readonly absent: Id
  readonly bombs: readonly Buffer[]
  readonly zstdOf: ReadonlyMap<Id, Buffer>
  readonly sentinel: { readonly content: EncodedObject; readonly root: EncodedObject }
}

const MiB = 1024 * 1024

export async function makeUniverse(): Promise<Universe> {
  const sizes = [0, 1, 17, 500, 4096, 20_000, 70_000]
  const chunks = sizes.map((size, i) => chunk(noise(size, i + 1), i % 3 === 2 ? 'sha256' : 'blake3'))
  const fresh = Array.from({ length: 60 }, (_, i) => chunk(noise(300 + 97 * i, 100 + i)))
  const parts = chunks.slice(3, 6)
  const file = encodeFileObject(
    parts.map(({ id, bytes }) => ({ id, size: bytes.length })),
    hashId(Buffer.concat(parts.map(({ bytes }) => bytes))),
  )
  const undigested = encodeFileObject(
    parts.map(({ id, bytes }) => ({ id, size: bytes.length })),
    undefined,
  )
  const [one, two] = [chunks[3] as EncodedObject, chunks[4] as EncodedObject]
  const sub = encodeDirectoryObject([fileEntry('c d.txt', two)])
  const size = parts.reduce((sum, { bytes }) => sum + bytes.length, 0)
  const root = encodeDirectoryObject([
    fileEntry('a.txt', one),
    { kind: 'file', name: 'big', ...attributes, id: file.id, size, chunked: true },
    directoryEntry('sub', sub),
  ])
  const renamed = encodeDirectoryObject([fileEntry('e.txt', two)])
  const patch = Buffer.from('[{"op":"replace","path":"/entries/0/name","value":"e.txt"}]')
  const base = chunks[4] as EncodedObject
  const changed = chunk(Buffer.concat([base.bytes, Buffer.from('more')]))
  const content = chunk(`${secret}: nobody but its owner reads this\n`)
  const zstdOf = new Map<Id, Buffer>()
  for (const item of [...chunks, ...fresh, file, root]) {
    zstdOf.set(item.id, await compress(item.bytes))
  }
  return {
    chunks,
    files: [file],
    directories: [root, sub, renamed],
    fresh,
    batches: await Promise.all([
      blockOf(chunks.slice(0, 4)),
      blockOf(fresh.slice(0, 20)),
      blockOf(fresh.slice(20, 40), 'identity'),
    ]),
    deltas: [
      {
        base: base.id,
        id: changed.id,
        bytes: await compress(changed.bytes, { dictionary: base.bytes }),
      },
    ],
    patches: {
      dirs: [{ base: sub.id, id: renamed.id, bytes: patch }],
      files: [{ base: file.id, id: undigested.id, bytes: Buffer.from('[{"op":"remove","path":"/digest"}]') }],
    },
    absent: chunk('never sent').id,
    bombs: [await compress(Buffer.alloc(64 * MiB)), await compress(Buffer.alloc(17 * MiB, 'x'))],
    zstdOf,
    sentinel: { content, root: encodeDirectoryObject([fileEntry(`${secret}.txt`, content)]) },
  }
}
