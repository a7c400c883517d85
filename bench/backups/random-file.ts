import { createCipheriv, createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Facts } from './corpora.ts'

const MiB = 1024 * 1024

/** Bytes that look random to everybody, and are the same each time: the key stream of AES-128-CTR. */
export class RandomBytes {
  readonly #cipher

  constructor(seed: string) {
    const key = createHash('sha256').update(seed).digest()
    this.#cipher = createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16))
  }

  next(length: number): Buffer {
    return this.#cipher.update(Buffer.alloc(length))
  }
}

/** One file of random bytes in the folder. */
export async function makeRandomFile(folder: string, bytes: number): Promise<Facts> {
  const random = new RandomBytes('random file')
  await using file = await open(join(folder, 'random.bin'), 'w')
  for (let at = 0; at < bytes; at += MiB) await file.write(random.next(Math.min(MiB, bytes - at)))
  return { files: 1, bytes }
}
