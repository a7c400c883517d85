/** What the process knows of a source and of its open checkpoints. Their files say the same. */
import { Mutex } from 'async-mutex'
import type { Id } from '../../protocol/id.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import type { CheckpointFolder } from './checkpoint-folder.ts'

export interface OpenCheckpoint {
  readonly state: CheckpointState
  readonly folder: CheckpointFolder
  readonly lock: Mutex
  readonly touchLock: Mutex
  items: number
  itemBytes: number
  /** The root that a commit under way walks from. */
  committing?: Id | undefined
  /** When a client last did something in its name, by performance.now(); undefined in a process in which none has. */
  signedAt: number | undefined
  /** Requests under way in its name. */
  users: number
}

export interface Source {
  readonly folder: CheckpointFolder
  readonly lock: Mutex
  readonly open: Map<number, OpenCheckpoint>
  owner: string | undefined
  /** Whether a number was given: from then on it belongs to its owner, or to nobody. */
  isBegun: boolean
}

export function newOpen(
  state: CheckpointState,
  folder: CheckpointFolder,
  items: number,
  itemBytes: number,
): OpenCheckpoint {
  const locks = { lock: new Mutex(), touchLock: new Mutex() }
  return { state, folder, items, itemBytes, ...locks, signedAt: undefined, users: 0 }
}

/** A sign of life. */
export function sign(opened: OpenCheckpoint): void {
  opened.signedAt = performance.now()
}

export function openState({ state, items, itemBytes }: OpenCheckpoint): CheckpointState {
  return state.kind === 'chunks' ? { ...state, items, itemBytes } : state
}

/** What it is counted and remembered under. */
export function keyOf({ source, number }: CheckpointName): string {
  return `${source}/${number}`
}
