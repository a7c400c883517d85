/** What requests on checkpoints must say, what becomes of them, and how they are refused. */
import { isDeepStrictEqual } from 'node:util'
import { Problem } from '../../protocol/problem.ts'
import type {
  CheckpointState,
  CommitRequest,
  MissingChunk,
  OpenRequest,
  Part,
} from '../../protocol/schema.ts'
import type { CheckpointName } from '../../protocol/url.ts'
import { type OpenCheckpoint, openState } from './open-checkpoint.ts'

export function begunState(
  source: string,
  { kind, about }: OpenRequest,
): Omit<CheckpointState, 'number'> & { openedAt: string } {
  const openedAt = new Date().toISOString()
  return { source, kind, state: 'open', openedAt, ...(about === undefined ? {} : { about }) }
}

export function isSameItem(a: Part, b: Part | undefined): boolean {
  return b !== undefined && a.id === b.id && a.size === b.size && a.chunked === b.chunked
}

export function checkCommitRequest(opened: OpenCheckpoint, { root, items }: CommitRequest): void {
  if (opened.state.kind === 'dir') {
    if (root === undefined) throw new Problem('invalid-request', 'to commit a dir checkpoint, name its root')
    if (items !== undefined) throw new Problem('invalid-request', 'a dir checkpoint has no items')
    return
  }
  if (items === undefined) {
    throw new Problem('invalid-request', 'to commit a chunks checkpoint, say how many items it has')
  }
  if (items !== opened.items) throw itemsConflict(`the list has ${opened.items} items, not ${items}`, opened)
}

export function committedState(opened: OpenCheckpoint, request: CommitRequest): CheckpointState {
  const { root, attributes, totals } = request
  return {
    ...openState(opened),
    state: 'committed',
    committedAt: new Date().toISOString(),
    ...(root === undefined ? {} : { root }),
    ...(attributes === undefined ? {} : { attributes }),
    ...(totals === undefined ? {} : { totals }),
  }
}

/** The state, when the request is the one that it was committed by. */
export function sameCommit(state: CheckpointState, request: CommitRequest): CheckpointState {
  const { root, attributes, items, totals } = state
  const asked = [request.root, request.attributes, request.items, request.totals]
  if (isDeepStrictEqual(asked, [root, attributes, items, totals])) return state
  throw new Problem(
    'checkpoint-committed',
    `checkpoint ${state.source}/${state.number} was committed by a different request`,
  )
}

export function missingChunks(missing: readonly MissingChunk[]): Problem {
  return new Problem('missing-chunks', `send what is missing (${missing.length} listed) and commit again`, {
    extensions: { missing },
  })
}

export function itemsConflict(detail: string, { items }: OpenCheckpoint): Problem {
  return new Problem('items-conflict', detail, { extensions: { total: items } })
}

export function tooManyOpen(source: string, most: number): Problem {
  const text = `${most} checkpoints of ${source} are open already; commit or delete one of them`
  return new Problem('conflict', text)
}

export function pinned({ source, number }: CheckpointName): Problem {
  return new Problem('conflict', `checkpoint ${source}/${number} is pinned; unpin it first`)
}

export function notFound({ source, number }: CheckpointName): Problem {
  return new Problem('checkpoint-not-found', `there is no checkpoint ${source}/${number}`)
}
