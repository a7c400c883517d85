/** What the server tests have in common: chunks to send, and a raw view of a connection. */
import { connect, type Socket } from 'node:net'
import { encodeBlock } from '../../protocol/block.ts'
import { hashId } from '../../protocol/hash.ts'
import type { HashAlgorithm, Id } from '../../protocol/id.ts'
import { type EncodedObject, encodeDirectoryObject, encodeFileObject } from '../../protocol/objects.ts'
import type { Attributes, Entry } from '../../protocol/schema.ts'
import type { TestReceiver } from '../support/receiver.ts'

export const MiB = 1024 * 1024

/** Bytes that look random, the same for the same seed. */
export function noise(bytes: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4))
  let state = seed * 2654435761
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    words[i] = state ^ (state >>> 15)
  }
  return Buffer.from(words.buffer, 0, bytes)
}

export function chunk(bytes: Buffer | string, algorithm: HashAlgorithm = 'blake3'): EncodedObject {
  const buffer = Buffer.from(bytes as string)
  return { id: hashId(buffer, algorithm), bytes: buffer }
}

/** The block of these chunks, as it travels. */
export async function blockOf(
  chunks: readonly EncodedObject[],
  encoding: 'identity' | 'zstd' = 'zstd',
): Promise<Buffer> {
  const plain = Buffer.concat(chunks.map(({ bytes }) => bytes))
  const rows = chunks.map(({ id, bytes }) => ({ id, length: bytes.length }))
  return (await encodeBlock(rows, plain, { encoding })).bytes
}

export const attributes: Attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: '1700000000000000000' }

export function fileEntry(name: string, content: EncodedObject): Entry {
  return { kind: 'file', name, ...attributes, id: content.id, size: content.bytes.length }
}

export function directoryEntry(name: string, directory: EncodedObject): Entry {
  return { kind: 'directory', name, ...attributes, id: directory.id }
}

/** A small tree: `a.txt`, `big` (of two chunks, through a file object) and `sub/b c.txt`. */
export function smallTree() {
  const a = chunk('the first file\n')
  const b = chunk('the second file, below\n')
  const parts = [chunk(noise(3000, 7)), chunk(noise(2000, 8))] as const
  const content = Buffer.concat(parts.map(({ bytes }) => bytes))
  const big = encodeFileObject(
    parts.map(({ id, bytes }) => ({ id, size: bytes.length })),
    hashId(content),
  )
  const sub = encodeDirectoryObject([fileEntry('b c.txt', b)])
  const root = encodeDirectoryObject([
    fileEntry('a.txt', a),
    { kind: 'file', name: 'big', ...attributes, id: big.id, size: content.length, chunked: true },
    { kind: 'symlink', name: 'link', ...attributes, target: 'a.txt' },
    directoryEntry('sub', sub),
  ])
  return { a, b, parts, content, big, sub, root, chunks: [a, b, ...parts], objects: [big, sub, root] }
}

export function put(
  server: TestReceiver,
  kind: string,
  item: EncodedObject,
  headers = {},
): Promise<Response> {
  return fetch(`${server.vaultUrl}/${kind}/${item.id}`, {
    method: 'PUT',
    body: new Uint8Array(item.bytes),
    headers,
  })
}

export function post(server: TestReceiver, path: string, body: unknown): Promise<Response> {
  return fetch(`${server.vaultUrl}/${path}`, { method: 'POST', body: JSON.stringify(body) })
}

/** Opens checkpoint `source`, returns its path below the vault. */
export async function begin(server: TestReceiver, source: string, kind: 'dir' | 'chunks'): Promise<string> {
  const answer = await post(server, `checkpoints/${source}/`, { kind })
  const { number } = (await answer.json()) as { number: number }
  return `checkpoints/${source}/${number}`
}

/** The code of a problem answer, with its status. */
export async function problemOf(answer: Response): Promise<string> {
  const { type } = (await answer.json()) as { type?: string }
  return `${answer.status} ${type?.replace('urn:chunkdav:problem:', '')}`
}

export function missingIds(body: unknown): Id[] {
  return (body as { missing: { id: Id }[] }).missing.map(({ id }) => id)
}

/** A connection of which the test sends and sees every byte. */
export class RawConnection {
  readonly socket: Socket
  received = ''
  ended = false

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (bytes: Buffer) => {
      this.received += bytes.toString('latin1')
    })
    socket.on('close', () => {
      this.ended = true
    })
    // What the test looks at is what arrived; a reset shows as `ended`.
    socket.on('error', () => {})
  }

  static async open(url: string): Promise<RawConnection> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
    await new Promise<void>((resolve) => socket.once('connect', () => resolve()))
    return new RawConnection(socket)
  }

  send(text: string | Buffer): void {
    this.socket.write(text)
  }

  /** Waits until what was received contains `text`, or the connection has ended. */
  async until(text: string): Promise<string> {
    while (!this.received.includes(text) && !this.ended && !this.socket.readableEnded) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return this.received
  }

  /** Waits until the server has sent all it will ever send. */
  async end(): Promise<string> {
    while (!this.ended && !this.socket.readableEnded) await new Promise((resolve) => setTimeout(resolve, 5))
    this.socket.destroy()
    return this.received
  }
}
