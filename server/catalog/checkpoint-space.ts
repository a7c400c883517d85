import type { CheckpointState } from '../../protocol/schema.ts'
import { itemBytes } from './item-list.ts'

/**
 * What a file, or a folder, counts beside its bytes, also when it is empty: about what file systems take for the name, the inode and
 * the end of the last block. Or else many small files would fill a disk and count for nothing.
 */
const fileBytes = 4096
/** The folder of a source, `last` and `owner`. */
const sourceBytes = 3 * fileBytes

/**
 * What the checkpoints of a vault take on the disk, about: of each source, and of each checkpoint, its files. Pins are not counted.
 * Summed up when the vault is opened, and changed with the files from then on, so that no request has to look at them.
 */
export class CheckpointSpace {
  readonly #taken = new Map<string, number>()
  readonly #expectSpace: (bytes: number) => void
  #storedBytes = 0

  /** `expectSpace` throws the Problem when the vault cannot take so many bytes more. */
  constructor(expectSpace: (bytes: number) => void) {
    this.#expectSpace = expectSpace
  }

  get storedBytes(): number {
    return this.#storedBytes
  }

  /** That so many bytes more fit. The Problem of `expectSpace`. */
  expect(bytes: number): void {
    this.#expectSpace(bytes)
  }

  /** Counts so many bytes more, before they are written. The Problem of `expectSpace`: then nothing is counted. */
  take(key: string, bytes: number): void {
    this.#expectSpace(bytes)
    this.add(key, bytes)
  }

  /** The same without asking; less than 0 for what was not written after all. */
  add(key: string, bytes: number): void {
    this.set(key, this.of(key) + bytes)
  }

  of(key: string): number {
    return this.#taken.get(key) ?? 0
  }

  /** 0 for what is gone. */
  set(key: string, bytes: number): void {
    this.#storedBytes += bytes - this.of(key)
    if (bytes === 0) this.#taken.delete(key)
    else this.#taken.set(key, bytes)
  }
}

/** A file of so many bytes. */
export function fileSpace(bytes: number): number {
  return fileBytes + bytes
}

/** A source without its checkpoints. */
export const sourceSpace: number = sourceBytes

/** A checkpoint that was just begun: its state, and two empty files. */
export function begunSpace(state: Omit<CheckpointState, 'number'>): number {
  return fileSpace(stateBytes(state)) + 2 * fileSpace(0)
}

/** A committed one. */
export function committedSpace(state: CheckpointState): number {
  const list = state.kind === 'chunks' ? fileSpace((state.items ?? 0) * itemBytes) : 0
  return fileSpace(stateBytes(state)) + list
}

function stateBytes(state: Omit<CheckpointState, 'number'>): number {
  return Buffer.byteLength(JSON.stringify(state))
}
