/**
 * Content-defined cutting: where a file is cut into chunks depends on its bytes alone, so that an
 * insert moves no other cut.
 *
 * A gear hash runs over the bytes: `h = (h << 1) + gear[byte]`, 32 bits, so that its high bits depend
 * on the last 32 bytes. A chunk ends behind the first byte, `minChunkBytes` or later, where the high
 * bits of `h` are zero: `strictBits` of them before `averageChunkBytes`, `looseBits` from there on,
 * and at `maxChunkBytes` in any case. `h` starts at zero at each chunk's byte `minChunkBytes - 32`.
 *
 * Source: W. Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
 * Deduplication", USENIX ATC 2016 (gear hash, cut-point skipping, normalized chunking).
 * `gear[i]` is the first four bytes, little-endian, of SHA-256 of the ASCII text
 * "chunkdav gear 1" followed by the byte i. Golden cuts: test/vectors/cuts.json.
 */
import { createHash } from 'node:crypto'

export const cutParameters = {
  minChunkBytes: 256 * 1024,
  averageChunkBytes: 1024 * 1024,
  maxChunkBytes: 4 * 1024 * 1024,
  strictBits: 22,
  looseBits: 18,
} as const

const windowBytes = 32

/** The 256 words of the gear hash. */
export const gear: Readonly<Uint32Array> = Uint32Array.from({ length: 256 }, (_, i) =>
  createHash('sha256').update('chunkdav gear 1').update(Uint8Array.of(i)).digest().readUInt32LE(0),
)

/**
 * The length of the chunk that starts at `bytes[start]`, in bytes. `end` bounds what is there; `final`
 * says that nothing follows. Returns 0 when more bytes are needed to tell; with `maxChunkBytes` bytes
 * at hand, or `final`, it always tells.
 */
export function cutLength(bytes: Uint8Array, start: number, end: number, final: boolean): number {
  const { minChunkBytes, averageChunkBytes, maxChunkBytes, strictBits, looseBits } = cutParameters
  const available = end - start
  if (available <= minChunkBytes) return final ? available : 0
  const average = Math.min(start + averageChunkBytes, end)
  const stop = Math.min(start + maxChunkBytes, end)
  // Zero high bits: unsigned `h` is below 2^(32 - bits).
  const strictBelow = 2 ** (32 - strictBits)
  const looseBelow = 2 ** (32 - looseBits)
  let hash = 0
  let at = start + minChunkBytes - windowBytes
  for (const warm = start + minChunkBytes - 1; at < warm; at++) {
    hash = (hash << 1) + (gear[bytes[at] as number] as number)
  }
  for (; at < average; at++) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0
    if (hash >>> 0 < strictBelow) return at + 1 - start
  }
  for (; at < stop; at++) {
    hash = ((hash << 1) + (gear[bytes[at] as number] as number)) | 0
    if (hash >>> 0 < looseBelow) return at + 1 - start
  }
  if (stop === start + maxChunkBytes) return maxChunkBytes
  return final ? available : 0
}
