/**
 * Whose a source is. The file `owner` in a source's folder holds `{"name":"alice"}`: the user who opened its first
 * checkpoint. It is written, durably, before that checkpoint, and never changes; it stays when all checkpoints are
 * deleted. A source that was begun without one (before there were users, or by a freeze) belongs to nobody.
 */
import { Type } from '../../protocol/json-schema.ts'
import { Problem } from '../../protocol/problem.ts'
import { parseJson } from '../../protocol/schema.ts'

const OwnerFile = Type.Object({ name: Type.String({ minLength: 1 }) }, { additionalProperties: false })

/** Whoever opens or continues checkpoints. */
export interface Claimant {
  /** Becomes the owner of sources that are new; undefined for who has no name to be known by again. */
  readonly name: string | undefined
  /** Also sources of others, and nobody's. */
  readonly mayUseAny: boolean
}

/** The receiver itself, and everybody where there are no users. */
export const unlimited: Claimant = { name: undefined, mayUseAny: true }

export function encodeOwner(name: string): string {
  return JSON.stringify({ name })
}

/** Problem `store-corrupt`. */
export function decodeOwner(path: string, text: string): string {
  try {
    return parseJson(OwnerFile, text).name
  } catch (cause) {
    throw new Problem('store-corrupt', `the file ${path} is damaged; its source belongs to nobody`, { cause })
  }
}

/** What freezes of the live tree are filed under, unless told otherwise. */
const freezes = /^tree(-|$)/

/**
 * Problem `forbidden` for whoever may not begin a source of that name: who owned that of the freezes before there is one
 * could put what they like in front of the tree's own.
 */
export function expectClaimable(source: string, by: Claimant): void {
  if (by.mayUseAny || !freezes.test(source)) return
  const text = `sources called tree and tree-… are for freezes of the live tree; use another name, or ask for the right to write`
  throw new Problem('forbidden', text, { extensions: { source } })
}

/** Problem `forbidden` for whoever may not use a source that was begun before. It does not tell whose it is. */
export function expectOwner(source: string, owner: string | undefined, by: Claimant): void {
  if (by.mayUseAny || (owner !== undefined && owner === by.name)) return
  const whose = owner === undefined ? 'nobody' : 'somebody else'
  throw new Problem(
    'forbidden',
    `the source ${source} belongs to ${whose}; use another name for yours, or ask for the right to write`,
    { extensions: { source } },
  )
}
