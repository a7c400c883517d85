/** Damage done to the files of a vault, as a disk would do it. */
import { readdir, readFile, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type BlockHeader, decodeBlock, parseHeader, sliceRow } from '../../protocol/block.ts'

export interface FoundRecord {
  readonly path: string
  readonly pack: number
  readonly offset: number
  readonly header: BlockHeader
}

export function packsOf(dataDir: string, vault = 'home'): string {
  return join(dataDir, 'vaults', vault, 'packs')
}

/** Every record of the packs, in order, as far as the headers lead. */
export async function recordsOf(dataDir: string, vault = 'home'): Promise<FoundRecord[]> {
  const found: FoundRecord[] = []
  for (const name of (await readdir(packsOf(dataDir, vault))).sort()) {
    const path = join(packsOf(dataDir, vault), name)
    const bytes = await readFile(path)
    for (let offset = 16; ; ) {
      const header = parseHeader(bytes, offset)
      if (header === undefined) break
      found.push({ path, pack: Number(name.slice(0, 8)), offset, header })
      offset += header.totalBytes
    }
  }
  return found
}

/** The record with the chunk. */
export async function recordWith(dataDir: string, id: string, vault = 'home'): Promise<FoundRecord> {
  const records = await recordsOf(dataDir, vault)
  const found = records.find(({ header }) => header.rows.some((row) => row.id === id))
  if (found === undefined) throw new Error(`${id} is in no pack`)
  return found
}

/** The first record with a chunk whose bytes are such. */
export async function recordOf(
  dataDir: string,
  isSuch: (bytes: Buffer) => boolean,
  vault = 'home',
): Promise<FoundRecord> {
  for (const record of await recordsOf(dataDir, vault)) {
    const { path, offset, header } = record
    const bytes = (await readFile(path)).subarray(offset, offset + header.totalBytes)
    const plain = await decodeBlock({ header, bytes })
    if (header.rows.some((row) => isSuch(sliceRow(plain, row)))) return record
  }
  throw new Error('no such chunk is in any pack')
}

/** Flips one bit. */
export async function flipAt(path: string, offset: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[offset] = (bytes[offset] as number) ^ 1
  await writeFile(path, bytes)
}

/** Flips a bit in the middle of a record's payload. */
export async function flipPayload({ path, offset, header }: FoundRecord): Promise<void> {
  await flipAt(path, offset + header.totalBytes - Math.ceil(header.payloadBytes / 2))
}

export async function flipHeader({ path, offset }: FoundRecord): Promise<void> {
  await flipAt(path, offset + 12)
}

/** Cuts the pack off in the middle of the record. */
export async function cutIn({ path, offset, header }: FoundRecord): Promise<void> {
  await truncate(path, offset + Math.floor(header.totalBytes / 2))
}

export async function removePack({ path }: FoundRecord): Promise<void> {
  await unlink(path)
}
