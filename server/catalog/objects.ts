import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { decodeDirectoryObject, decodeFileObject } from '../../protocol/objects.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject } from '../../protocol/schema.ts'
import type { ChunkReader } from './chunk-reader.ts'

/** The two kinds of chunks that mean something to the receiver. */
export type ObjectKind = 'file' | 'directory'

/** The object that `bytes` hold; Problem `invalid-object` when it is none of that kind. */
export function decodeObject(kind: ObjectKind, bytes: Buffer): FileObject | DirectoryObject {
  if (bytes.length > limits.maxObjectBytes) {
    throw new Problem('invalid-object', `an object has at most ${limits.maxObjectBytes} bytes`)
  }
  return kind === 'file' ? decodeFileObject(bytes) : decodeDirectoryObject(bytes)
}

/**
 * The bytes of object `id`, or Problem `not-found` when there is no such chunk or it is no object of
 * that kind. Problem `chunk-corrupt` as in `ChunkReader.get`.
 */
export async function readObjectBytes(reader: ChunkReader, kind: ObjectKind, id: Id): Promise<Buffer> {
  const [length] = await reader.stat([id])
  const bytes = length === undefined || length > limits.maxObjectBytes ? undefined : await reader.get(id)
  if (bytes === undefined) throw new Problem('not-found', `there is no ${kind} object ${id}`)
  try {
    decodeObject(kind, bytes)
  } catch (cause) {
    if (!isProblem(cause, 'invalid-object')) throw cause
    throw new Problem('not-found', `${id} is no ${kind} object`, { cause })
  }
  return bytes
}

/** Object `id`, decoded; the same problems. */
export async function readObject(reader: ChunkReader, kind: 'file', id: Id): Promise<FileObject>
export async function readObject(reader: ChunkReader, kind: 'directory', id: Id): Promise<DirectoryObject>
export async function readObject(
  reader: ChunkReader,
  kind: ObjectKind,
  id: Id,
): Promise<FileObject | DirectoryObject> {
  return decodeObject(kind, await readObjectBytes(reader, kind, id))
}
