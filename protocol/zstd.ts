/**
 * zstd (RFC 8878) from node:zlib, off the main thread, with the bounds that an untrusted frame needs.
 */
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
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

/** One zstd frame of `plain`. `dictionary` is raw content that the frame may refer to. */
export function compress(
  plain: Uint8Array,
  options: { level?: number; dictionary?: Buffer } = {},
): Promise<Buffer> {
  const params: Record<number, number> = {
    [constants.ZSTD_c_compressionLevel]: options.level ?? defaultCompressionLevel,
  }
  if (options.dictionary !== undefined) {
    // The window must span the base and the new bytes, and the match table must hold all of the base:
    // with level 1's own table only the base's last 100 KiB are found again (measured).
    const spanLog = Math.ceil(Math.log2(options.dictionary.length + plain.length + 1))
    params[constants.ZSTD_c_windowLog] = Math.min(27, Math.max(10, spanLog))
    params[constants.ZSTD_c_hashLog] = Math.min(25, Math.max(17, spanLog))
  }
  return new Promise((resolve, reject) => {
    // zstd's own bound for what does not compress: ZSTD_COMPRESSBOUND.
    const chunkSize = pieceBytes(plain.length + (plain.length >>> 8) + 64 * 1024)
    const { dictionary } = options
    const settings = { params, chunkSize, pledgedSrcSize: plain.length, ...(dictionary && { dictionary }) }
    zstdCompress(plain, settings, (error, encoded) => (error ? reject(error) : resolve(encoded)))
  })
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
  if (!frameMagic.equals(encoded.subarray(0, frameMagic.length))) {
    return Promise.reject(new Problem('invalid-encoding', 'the body is no zstd frame'))
  }
  return new Promise((resolve, reject) => {
    const settings = {
      maxOutputLength: Math.max(1, options.maxBytes),
      // One byte more than can come: a piece that is filled to its end makes zlib ask for another.
      chunkSize: pieceBytes(options.maxBytes + 1),
      info: true,
      params: { [constants.ZSTD_d_windowLogMax]: 27 },
      ...(options.dictionary === undefined ? {} : { dictionary: options.dictionary }),
    }
    // With `info` the result is { buffer, engine }, which the published types do not know.
    const done = (error: NodeJS.ErrnoException | null, result: unknown): void => {
      if (error) {
        reject(decodeFailure(error, options.maxBytes))
        return
      }
      const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } }
      if (engine.bytesWritten !== encoded.length) {
        reject(new Problem('invalid-encoding', 'there are bytes behind the zstd frame'))
      } else if (buffer.length > options.maxBytes) {
        reject(tooLarge(options.maxBytes))
      } else {
        resolve(buffer)
      }
    }
    zstdDecompress(encoded, settings as never, done as never)
  })
}

function pieceBytes(expectedBytes: number): number {
  return Math.min(maxPieceBytes, Math.max(minPieceBytes, expectedBytes))
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
