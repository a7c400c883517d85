/**
 * zstd (RFC 8878) from node:zlib, off the main thread, with the bounds that an untrusted frame needs.
 */
import { constants, zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } from 'node:zlib'
import { Problem } from './problem.ts'

/** Level 1: on headers and libraries in blocks of 1 MiB, level 3 leaves a tenth less and takes a third longer (measured). */
export const defaultCompressionLevel = 1

/**
 * Output is produced in pieces of at most this size, each a turn of the thread pool and of the event loop.
 * When the output fits into one piece, and the frame tells its size, zstd works from buffer to buffer
 * without a window of its own: half the time, and far less memory for the collector to account for.
 */
const maxPieceBytes = 4 * 1024 * 1024
const minPieceBytes = 1024

/** More than zstd's own bound for what does not compress, ZSTD_COMPRESSBOUND: a piece that is filled asks for another. */
function boundOf(plainBytes: number): number {
  return plainBytes + (plainBytes >>> 8) + 1024
}

/**
 * Level 1 with a table twice as large, and matches from six bytes on: in blocks of 1 MiB of libraries, headers and
 * scripts a twenty-fifth less for a twentieth more time (measured).
 */
function levelParameters(level = defaultCompressionLevel): Record<number, number> {
  const { ZSTD_c_compressionLevel, ZSTD_c_hashLog, ZSTD_c_minMatch } = constants
  const parameters = { [ZSTD_c_compressionLevel]: level }
  return level === 1 ? { ...parameters, [ZSTD_c_hashLog]: 15, [ZSTD_c_minMatch]: 6 } : parameters
}

/** One zstd frame of `plain`. `dictionary` is raw content that the frame may refer to. */
export function compress(
  plain: Uint8Array,
  options: { level?: number; dictionary?: Buffer } = {},
): Promise<Buffer> {
  const params = levelParameters(options.level)
  if (options.dictionary !== undefined) {
    // The window must span the base and the new bytes, and the match table must hold all of the base:
    // with level 1's own table only the base's last 100 KiB are found again (measured).
    const spanLog = Math.ceil(Math.log2(options.dictionary.length + plain.length + 1))
    params[constants.ZSTD_c_windowLog] = Math.min(27, Math.max(10, spanLog))
    params[constants.ZSTD_c_hashLog] = Math.min(25, Math.max(17, spanLog))
  }
  return new Promise((resolve, reject) => {
    const chunkSize = pieceBytes(boundOf(plain.length))
    const { dictionary } = options
    const settings = { params, chunkSize, pledgedSrcSize: plain.length, ...(dictionary && { dictionary }) }
    zstdCompress(plain, settings, (error, encoded) => (error ? reject(error) : resolve(encoded)))
  })
}

/**
 * The same at once, for threads that may be busy: a sixth less processor time than through the thread pool (measured).
 * The result has its memory to itself, so that whoever is done with it can free it.
 */
export function compressNow(plain: Uint8Array, level?: number): Buffer {
  const chunkSize = Math.max(Buffer.poolSize + 1, boundOf(plain.length))
  return zstdCompressSync(plain, { params: levelParameters(level), chunkSize, pledgedSrcSize: plain.length })
}

/** RFC 8878, section 3.1.1. A skippable frame has another: it decodes to nothing, without an error. */
const frameMagic = Buffer.from('28b52ffd', 'hex')

/**
 * The bytes of exactly one zstd frame, which may decode to `maxBytes` at most.
 * Problem `invalid-encoding` when it is no frame, is cut short, or has bytes behind it;
 * `body-too-large` when it decodes to more. Never allocates more than `maxBytes` and a window.
 */
export function decompress(
  encoded: Uint8Array,
  options: { maxBytes: number; dictionary?: Buffer },
): Promise<Buffer> {
  const { maxBytes, dictionary } = options
  if (!beginsFrame(encoded)) return Promise.reject(noFrame())
  return new Promise((resolve, reject) => {
    const settings = {
      ...decodeSettings(maxBytes, maxPieceBytes),
      ...(dictionary === undefined ? {} : { dictionary }),
    }
    const done = (error: NodeJS.ErrnoException | null, result: unknown): void => {
      const plain = error === null ? plainOf(result, encoded, maxBytes) : decodeFailure(error, maxBytes)
      if (Buffer.isBuffer(plain)) resolve(plain)
      else reject(plain)
    }
    zstdDecompress(encoded, settings as never, done as never)
  })
}

/**
 * The same at once, for threads that may be busy: a third less processor time than through the thread pool (measured).
 * In one piece of memory, so that whoever is done with it can free all of it.
 */
export function decompressNow(encoded: Uint8Array, maxBytes: number): Buffer {
  if (!beginsFrame(encoded)) throw noFrame()
  let result: unknown
  try {
    result = zstdDecompressSync(encoded, decodeSettings(maxBytes, Number.POSITIVE_INFINITY) as never)
  } catch (error) {
    throw decodeFailure(error as NodeJS.ErrnoException, maxBytes)
  }
  const plain = plainOf(result, encoded, maxBytes)
  if (Buffer.isBuffer(plain)) return plain
  throw plain
}

function beginsFrame(encoded: Uint8Array): boolean {
  return frameMagic.equals(encoded.subarray(0, frameMagic.length))
}

function decodeSettings(maxBytes: number, mostPieceBytes: number) {
  return {
    maxOutputLength: Math.max(1, maxBytes),
    // One byte more than can come: a piece that is filled to its end makes zlib ask for another.
    chunkSize: pieceBytes(maxBytes + 1, mostPieceBytes),
    info: true,
    params: { [constants.ZSTD_d_windowLogMax]: 27 },
  }
}

/** With `info` the result is { buffer, engine }, which the published types do not know. */
function plainOf(result: unknown, encoded: Uint8Array, maxBytes: number): Buffer | Problem {
  const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } }
  if (engine.bytesWritten !== encoded.length) {
    return new Problem('invalid-encoding', 'there are bytes behind the zstd frame')
  }
  return buffer.length > maxBytes ? tooLarge(maxBytes) : buffer
}

function noFrame(): Problem {
  return new Problem('invalid-encoding', 'the body is no zstd frame')
}

function pieceBytes(expectedBytes: number, mostBytes = maxPieceBytes): number {
  return Math.min(mostBytes, Math.max(minPieceBytes, expectedBytes))
}

function tooLarge(maxBytes: number, cause?: unknown): Problem {
  return new Problem('body-too-large', `the body decodes to more than ${maxBytes} bytes`, { cause })
}

function decodeFailure(error: NodeJS.ErrnoException, maxBytes: number): Problem {
  if (error.code === 'ERR_BUFFER_TOO_LARGE') return tooLarge(maxBytes, error)
  return new Problem('invalid-encoding', `the zstd frame does not decode: ${error.message}`, {
    cause: error,
  })
}
