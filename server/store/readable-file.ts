import type { StoreFile } from '../file-layer.ts'

/** What a drive reads at once. */
const sectorBytes = 4096

/** Sectors that the disk cannot read are zeros: the checksums then tell which records they were of. */
export function readableFile(file: StoreFile): StoreFile {
  return {
    read: async (target, position) => {
      try {
        return await file.read(target, position)
      } catch (error) {
        if (codeOf(error) !== 'EIO') throw error
        return await readBySectors(file, target, position)
      }
    },
    write: (parts, position) => file.write(parts, position),
    datasync: () => file.datasync(),
    truncate: (length) => file.truncate(length),
    size: () => file.size(),
    close: () => file.close(),
  }
}

async function readBySectors(file: StoreFile, target: Buffer, position: number): Promise<number> {
  const end = Math.min(target.length, Math.max(0, (await file.size()) - position))
  for (let at = 0; at < end; ) {
    const length = Math.min(end - at, sectorBytes - ((position + at) % sectorBytes))
    const part = target.subarray(at, at + length)
    try {
      await file.read(part, position + at)
    } catch (error) {
      if (codeOf(error) !== 'EIO') throw error
      part.fill(0)
    }
    at += length
  }
  return end
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}
