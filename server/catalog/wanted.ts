import type { Id } from '../../protocol/id.ts'
import { limits } from '../../protocol/limits.ts'
import { type Reference, referencesOfDirectory } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject, Part } from '../../protocol/schema.ts'
import type { ObjectKind } from './objects.ts'

/** Something that must be there. `within` is the entry that needs it. */
export interface Wanted extends Reference {
  readonly within: Id
  /** Nesting of list parts so far; 0 or absent for what is no part. */
  readonly partDepth?: number
}

export interface ObjectWanted extends Wanted {
  readonly as: ObjectKind
}

/** What is remembered of an object stands under this. */
export function memoKey({ as, id }: Pick<ObjectWanted, 'as' | 'id'>): string {
  return (as === 'file' ? 'f' : 'd') + id
}

/** Problem `invalid-object` when something is there, of another size than what refers to it says. */
export function checkSize(wanted: Wanted, actual: number): void {
  if (wanted.size === undefined || wanted.size === actual) return
  throw invalid(wanted, `${wanted.id} has ${actual} bytes, what refers to it says ${wanted.size}`)
}

export function invalid(wanted: Wanted, detail: string, cause?: unknown): Problem {
  return new Problem('invalid-object', detail, {
    cause,
    extensions: { id: wanted.id, within: wanted.within },
  })
}

/** What an object refers to, and within which entry each is needed. Problem `invalid-object` when parts nest too deep. */
export function referencesFrom(owner: Wanted, object: FileObject | DirectoryObject): Wanted[] {
  // The entries of a directory are needed for themselves; parts are needed for what they are parts of.
  if (object.type === 'directory' && 'entries' in object) {
    return referencesOfDirectory(object).map((reference) => ({ ...reference, within: reference.id }))
  }
  const partDepth = (owner.partDepth ?? 0) + 1
  if (partDepth > limits.maxPartDepth) throw tooDeep(owner)
  const { within } = owner
  if (object.type === 'directory') {
    return object.parts.map(({ id }) => ({ id, as: 'directory', within, partDepth }))
  }
  return object.parts.map(({ id, size, chunked }) => {
    return { id, as: chunked === true ? 'file' : 'chunk', size, within, partDepth }
  })
}

/** Problem `invalid-object` when the parts below an object, `height` levels of them, nest too deep where it stands. */
export function checkDepth(wanted: Wanted, height: number): void {
  if ((wanted.partDepth ?? 0) + height > limits.maxPartDepth) throw tooDeep(wanted)
}

function tooDeep(wanted: Wanted): Problem {
  return invalid(wanted, `parts nest more than ${limits.maxPartDepth} deep`)
}

/** The root of a checkpoint. */
export function wantedRoot(root: Id): Wanted {
  return { id: root, as: 'directory', within: root }
}

/** An item of a `chunks` checkpoint. */
export function wantedItem({ id, size, chunked }: Part): Wanted {
  return { id, size, as: chunked === true ? 'file' : 'chunk', within: id }
}
