/**
 * Hashing behind one tiny module. BLAKE3 comes from the WASM build of `blake3` (always there) and,
 * when its prebuilt binary loads, from `@napi-rs/blake-hash`, which is about seven times faster.
 * SHA-256 is Node's own. All implementations pass the same published vectors.
 */
import { createHash, type Hash } from 'node:crypto'
import { createRequire } from 'node:module'
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { algorithmOf, type HashAlgorithm, type Id, idOfDigest } from './id.ts'

/** An incremental hash. After `digest()` (32 bytes) or `dispose()` it must not be used again. */
export interface Hasher {
  update(bytes: Uint8Array): void
  digest(): Buffer
  dispose(): void
}

export interface HashImplementation {
  readonly name: string
  readonly algorithm: HashAlgorithm
  /** The digest of `bytes` in one call: 64 lower-case hex digits, since ids are text. */
  hex(bytes: Uint8Array): string
  create(): Hasher
}

const require = createRequire(import.meta.url)

interface WasmBlake3 {
  hash(bytes: Uint8Array): Buffer
  createHash(): { update(bytes: Uint8Array): unknown; digest(): Buffer; dispose(): void }
}

interface NativeBlake3 {
  Blake3Hasher: new () => {
    reset(): void
    update(bytes: Buffer): unknown
    digest(): string
    digestBuffer(): Buffer
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function wasmBlake3(): HashImplementation {
  // Loaded when it is used: where there is the native one, it would cost every thread 7 ms and 2 MB (measured).
  let wasm: WasmBlake3 | undefined
  // Not 'blake3' itself: its install script may point that at a binary that it downloaded, unverified.
  const loaded = (): WasmBlake3 => (wasm ??= require('blake3/dist/node') as WasmBlake3)
  return {
    name: 'blake3 (WASM)',
    algorithm: 'blake3',
    hex: (bytes) => loaded().hash(bytes).toString('hex'),
    create() {
      const hash = loaded().createHash()
      return {
        update: (bytes) => void hash.update(bytes),
        digest: () => hash.digest(),
        dispose: () => hash.dispose(),
      }
    },
  }
}

function nativeBlake3(): HashImplementation | undefined {
  let native: NativeBlake3
  try {
    native = require('@napi-rs/blake-hash') as NativeBlake3
  } catch (error) {
    // An optional dependency: absent, or no binary for this platform. Anything else is a defect.
    if (error instanceof Error) return undefined
    throw error
  }
  // One for all, and text: a Buffer that comes from native code costs more than hashing 2 KiB (measured).
  const whole = new native.Blake3Hasher()
  return {
    name: 'blake3 (native)',
    algorithm: 'blake3',
    hex(bytes) {
      whole.reset()
      whole.update(asBuffer(bytes))
      return whole.digest()
    },
    create() {
      const hash = new native.Blake3Hasher()
      return {
        update: (bytes) => void hash.update(asBuffer(bytes)),
        digest: () => hash.digestBuffer(),
        dispose() {},
      }
    },
  }
}

function nodeSha256(): HashImplementation {
  return {
    name: 'sha256 (node:crypto)',
    algorithm: 'sha256',
    hex: (bytes) => createHash('sha256').update(bytes).digest('hex'),
    create() {
      const hash: Hash = createHash('sha256')
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest(), dispose() {} }
    },
  }
}

let loaded: readonly HashImplementation[] | undefined

/**
 * Every implementation that this machine can run, the preferred one of each algorithm first. Loaded when something is
 * hashed: a backup in which nothing changed has no use for them, and they take 10 ms.
 */
export function hashImplementations(): readonly HashImplementation[] {
  loaded ??= [nativeBlake3(), wasmBlake3(), nodeSha256()].filter(
    (implementation) => implementation !== undefined,
  )
  return loaded
}

const preferred = new Map<HashAlgorithm, HashImplementation>()

function implementationOf(algorithm: HashAlgorithm): HashImplementation {
  const known = preferred.get(algorithm)
  if (known !== undefined) return known
  const found = hashImplementations().find((candidate) => candidate.algorithm === algorithm)
  if (found === undefined) throw new TypeError(`unknown hash algorithm ${algorithm}`)
  preferred.set(algorithm, found)
  return found
}

/** The id of `bytes`. Synchronous: for more than a few MiB on an event loop use `hashInSlices`. */
export function hashId(bytes: Uint8Array, algorithm: HashAlgorithm = 'blake3'): Id {
  return `${algorithm}:${implementationOf(algorithm).hex(bytes)}`
}

/** An incremental hash of `algorithm`. */
export function createHasher(algorithm: HashAlgorithm = 'blake3'): Hasher {
  return implementationOf(algorithm).create()
}

/** How much is hashed between two turns of the event loop: about 1 ms in WASM. */
const sliceBytes = 1024 * 1024

/** The id of `bytes` under the algorithm of `like`, never holding the event loop for long. */
export async function hashInSlices(bytes: Uint8Array, like: Id): Promise<Id> {
  const algorithm = algorithmOf(like)
  if (bytes.length <= sliceBytes) return hashId(bytes, algorithm)
  const hasher = createHasher(algorithm)
  for (let offset = 0; offset < bytes.length; offset += sliceBytes) {
    hasher.update(bytes.subarray(offset, offset + sliceBytes))
    await yieldToEventLoop()
  }
  return idOfDigest(algorithm, hasher.digest())
}
