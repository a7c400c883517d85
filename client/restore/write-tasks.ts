/**
 * What a writing thread does. It keeps nothing between two tasks: whatever it needs stands in the task, open files
 * are told by their descriptors, which all threads of a process share.
 *
 *     block    decode it, hash each wanted chunk, write it wherever it is wanted
 *     finish   hash the whole file, give it its attributes, put it in its place
 *
 * What goes wrong with one chunk or one file is told in the answer; the rest of the task is done.
 */
import { closeSync, fstatSync, ftruncateSync, renameSync, rmSync } from 'node:fs'
import { type BlockHeader, type BlockRow, discard, sliceRow } from '../../protocol/block.ts'
import { createHasher, hashId } from '../../protocol/hash.ts'
import { algorithmOf, type Id, idOfDigest } from '../../protocol/id.ts'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { Attributes } from '../../protocol/schema.ts'
import { decompressNow } from '../../protocol/zstd.ts'
import { isSystemError } from '../errno.ts'
import { creationMode, setFileAttributes } from './attributes.ts'
import { createAnew, partName, readFrom, writePart } from './part-file.ts'

/** Where a file goes. Paths are latin1. */
export interface FilePlace {
  readonly folder: string
  readonly name: string
  readonly key: string
  readonly attributes: Attributes | undefined
}

/** A file that is one chunk: made, written, and put in its place in one go. */
export interface WholeTarget extends FilePlace {
  readonly kind: 'whole'
  readonly sparse: boolean
}

/** A place in a file that is open. */
export interface PartTarget {
  readonly kind: 'part'
  readonly fd: number
  readonly offset: number
  readonly sparse: boolean
  readonly resumed: boolean
}

export interface ChunkTask {
  readonly row: BlockRow
  readonly targets: readonly (WholeTarget | PartTarget)[]
}

export interface BlockTask {
  readonly kind: 'block'
  readonly memory: SharedArrayBuffer
  /** Of the payload, in `memory`. */
  readonly offset: number
  readonly header: Pick<BlockHeader, 'encoding' | 'plainBytes' | 'payloadBytes'>
  readonly chunks: readonly ChunkTask[]
  /** The chunks were hashed already. */
  readonly verified: boolean
}

export interface FinishTask extends FilePlace {
  readonly kind: 'finish'
  readonly fd: number
  readonly size: number
  readonly digest: Id | undefined
}

/** An error on its way between threads. */
export type Fault =
  | {
      readonly code: string
      readonly syscall: string
      readonly errno: number | undefined
      readonly message: string
    }
  | { readonly problem: ProblemCode; readonly detail: string; readonly extensions: Record<string, unknown> }

/** How a file came out: right, without its attributes, or not. */
export interface TargetEnd {
  readonly fault?: Fault
  readonly unset?: Fault
}

export interface BlockAnswer {
  /** By chunk; `false` when its bytes are not what its id says. */
  readonly chunks: readonly (readonly TargetEnd[] | false)[]
}

const fine: TargetEnd = {}

/** Decodes, hashes, writes. */
export function writeBlock(task: BlockTask): BlockAnswer {
  const plain = plainOf(task)
  const chunks = task.chunks.map((chunk) => writeChunk(plain, chunk, task.verified))
  if (plain !== undefined && task.header.encoding !== 'identity') discard(plain)
  return { chunks }
}

/** Undefined when it does not decode to what its header says. */
function plainOf({ memory, offset, header }: BlockTask): Buffer | undefined {
  const { encoding, plainBytes, payloadBytes } = header
  const payload = Buffer.from(memory, offset, payloadBytes)
  if (encoding === 'identity') return payload
  try {
    const plain = decompressNow(payload, plainBytes)
    return plain.length === plainBytes ? plain : undefined
  } catch (error) {
    if (isProblem(error)) return undefined
    throw error
  }
}

function writeChunk(
  plain: Buffer | undefined,
  { row, targets }: ChunkTask,
  verified: boolean,
): readonly TargetEnd[] | false {
  if (plain === undefined) return false
  const bytes = sliceRow(plain, row)
  if (!verified && hashId(bytes, algorithmOf(row.id)) !== row.id) return false
  return targets.map((target) =>
    target.kind === 'part' ? writeToPart(bytes, target) : writeWhole(bytes, target),
  )
}

function writeToPart(bytes: Buffer, target: PartTarget): TargetEnd {
  try {
    writePart(target.fd, bytes, target.offset, target)
    return fine
  } catch (error) {
    return { fault: faultOf(error) }
  }
}

function writeWhole(bytes: Buffer, target: WholeTarget): TargetEnd {
  const { attributes } = target
  const part = partPathOf(target)
  try {
    const fd = createAnew(part, attributes === undefined ? 0o600 : creationMode(attributes))
    try {
      writePart(fd, bytes, 0, { sparse: target.sparse, resumed: false })
      if (target.sparse) setLength(fd, bytes.length)
      return place(fd, target, part)
    } catch (error) {
      rmSync(part, { force: true })
      throw error
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    return { fault: faultOf(error) }
  }
}

/**
 * Checks the whole, and puts it in its place. The descriptor stays open. Problem `cancelled` once `isStopped` says so: to
 * read a large file takes minutes.
 */
export function finishFile(task: FinishTask, isStopped: () => boolean): TargetEnd {
  try {
    const { fd, digest, size } = task
    setLength(fd, size)
    if (digest !== undefined) {
      const actual = digestOf(fd, size, digest, isStopped)
      if (actual !== digest) {
        const text = `the whole file hashes to ${actual}, not to ${digest}`
        throw new Problem('digest-mismatch', text, { extensions: { id: digest, actual } })
      }
    }
    return place(fd, task, partPathOf(task))
  } catch (error) {
    return { fault: faultOf(error) }
  }
}

/** The content is right even where owner or mode cannot be set: that is told, and the file kept. */
function place(fd: number, target: FilePlace, part: Buffer): TargetEnd {
  let end = fine
  try {
    if (target.attributes !== undefined) setFileAttributes(fd, target.attributes)
  } catch (error) {
    end = { unset: faultOf(error) }
  }
  renameSync(part, Buffer.from(`${target.folder}/${target.name}`, 'latin1'))
  return end
}

export function partPathOf({ folder, name, key }: FilePlace): Buffer {
  const part = partName(Buffer.from(name, 'latin1'), key).toString('latin1')
  return Buffer.from(`${folder}/${part}`, 'latin1')
}

/** Gives a file its length: holes at its end, or bytes of an older run behind it. */
function setLength(fd: number, size: number): void {
  if (fstatSync(fd).size !== size) ftruncateSync(fd, size)
}

/** Read back from the page cache in stretches that the processor's caches hold: the chunks came in any order. */
const stretch = Buffer.allocUnsafeSlow(256 * 1024)

function digestOf(fd: number, size: number, like: Id, isStopped: () => boolean): Id {
  const algorithm = algorithmOf(like)
  const hasher = createHasher(algorithm)
  try {
    for (let offset = 0; offset < size; offset += stretch.length) {
      if (isStopped()) throw new Problem('cancelled', 'the restore has ended')
      const length = readFrom(fd, stretch.subarray(0, Math.min(stretch.length, size - offset)), offset)
      hasher.update(stretch.subarray(0, length))
    }
    return idOfDigest(algorithm, hasher.digest())
  } finally {
    hasher.dispose()
  }
}

function faultOf(error: unknown): Fault {
  if (isProblem(error)) return { problem: error.code, detail: error.message, extensions: error.extensions }
  if (!isSystemError(error)) throw error
  const { code, syscall = '', errno, message } = error
  return { code, syscall, errno, message }
}

/** The error that a thread has told of. */
export function errorOf(fault: Fault): Error {
  if ('problem' in fault) {
    return new Problem(fault.problem, fault.detail, { extensions: fault.extensions })
  }
  const { message, ...fields } = fault
  return Object.assign(new Error(message), fields)
}
