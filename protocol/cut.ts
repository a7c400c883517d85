/**
 * Content-defined cutting: where a file is cut into chunks depends on its bytes alone, so that an
 * insert moves no other cut.
 *
 * A gear hash runs over the bytes: `h = (h << 1) + gear[byte]` in 32 bits, so that it depends on the
 * last 32 bytes and nothing else. A chunk ends behind the first byte, `minChunkBytes` or later, where the high
 * bits of `h` are zero: `strictBits` of them in a chunk of up to `averageChunkBytes`, `looseBits` in a
 * longer one; and at `maxChunkBytes` in any case.
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

/** The 256 words of the gear hash, signed so that the arithmetic stays in 32-bit integers. */
export const gear: Readonly<Int32Array> = Int32Array.from({ length: 256 }, (_, i) =>
  createHash('sha256').update('chunkdav gear 1').update(Uint8Array.of(i)).digest().readInt32LE(0),
)

const strictMask = -1 << (32 - cutParameters.strictBits)
const looseMask = -1 << (32 - cutParameters.looseBits)

/** The offset behind the first byte in [from, to) at which the masked hash is zero, or 0. It depends on the 31 bytes before, too. */
export type FindCut = (from: number, to: number, mask: number) => number

/**
 * The length of the chunk that starts at `bytes[start]`, in bytes. `end` bounds what is there; `final`
 * says that nothing follows. Returns 0 when more bytes are needed to tell; with `maxChunkBytes` bytes
 * at hand, or `final`, it always tells. Who asks again then says in `searched` how many bytes were there
 * the last time: they are not searched twice.
 */
export function cutLength(
  bytes: Uint8Array,
  start: number,
  end: number,
  final: boolean,
  searched = 0,
): number {
  return cutLengthBy((from, to, mask) => findCut(bytes, from, to, mask), start, end, final, searched)
}

/** The same where another search knows the bytes, and the offsets are its own. */
export function cutLengthBy(find: FindCut, start: number, end: number, final: boolean, searched = 0): number {
  const { minChunkBytes, averageChunkBytes, maxChunkBytes } = cutParameters
  const available = end - start
  if (available <= minChunkBytes) return final ? available : 0
  const first = start + (searched > minChunkBytes ? searched : minChunkBytes - 1)
  const average = Math.min(start + averageChunkBytes, end)
  const stop = Math.min(start + maxChunkBytes, end)
  const strict = find(first, average, strictMask)
  if (strict !== 0) return strict - start
  const loose = find(Math.max(first, average), stop, looseMask)
  if (loose !== 0) return loose - start
  if (stop === start + maxChunkBytes) return maxChunkBytes
  return final ? available : 0
}

/**
 * The offset behind the first byte in [from, to) at which the masked hash is zero, or 0. The hash is a
 * function of 32 bytes, so it is brought up from those before `from`. Four bytes a turn: a plain loop
 * takes nearly twice as long (measured).
 */
function findCut(bytes: Uint8Array, from: number, to: number, mask: number): number {
  const words = gear
  let hash = 0
  for (let at = from - windowBytes + 1; at < from; at++) {
    hash = ((hash << 1) + (words[bytes[at] as number] as number)) | 0
  }
  let at = from
  for (const last = to - 3; at < last; at += 4) {
    hash = ((hash << 1) + (words[bytes[at] as number] as number)) | 0
    if ((hash & mask) === 0) return at + 1
    hash = ((hash << 1) + (words[bytes[at + 1] as number] as number)) | 0
    if ((hash & mask) === 0) return at + 2
    hash = ((hash << 1) + (words[bytes[at + 2] as number] as number)) | 0
    if ((hash & mask) === 0) return at + 3
    hash = ((hash << 1) + (words[bytes[at + 3] as number] as number)) | 0
    if ((hash & mask) === 0) return at + 4
  }
  for (; at < to; at++) {
    hash = ((hash << 1) + (words[bytes[at] as number] as number)) | 0
    if ((hash & mask) === 0) return at + 1
  }
  return 0
}
