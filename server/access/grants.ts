/**
 * What a user was given: a right for each vault by its name, and `*` for those that are not named. A token may narrow
 * that down, and never widens it: what a token may is asked of its user each time.
 */
import { isProblem, Problem } from '../../protocol/problem.ts'
import { parseVaultName } from '../../protocol/url.ts'
import { allows, type Identity, needs, type Right, rights } from './identity.ts'

/** Names of vaults, or `*`, and the right on each. */
export type Grants = Readonly<Record<string, Right>>

/** What somebody may do. */
export interface Powers {
  readonly grants: Grants
  readonly metrics?: boolean
}

export const everyVault = '*'

/** The right on a vault: the one that was given on it by its name, else that on every vault. */
export function rightIn(grants: Grants, vault: string): Right | undefined {
  // A vault may be called `constructor`.
  if (Object.hasOwn(grants, vault)) return grants[vault]
  return Object.hasOwn(grants, everyVault) ? grants[everyVault] : undefined
}

/** What both rights allow. `read` and `append-only` have nothing in common that is worth a right: undefined. */
export function narrower(left: Right | undefined, right: Right | undefined): Right | undefined {
  if (left === undefined || right === undefined) return undefined
  if (contains(left, right)) return right
  return contains(right, left) ? left : undefined
}

function contains(greater: Right, lesser: Right): boolean {
  return needs.every((need) => allows(greater, need) || !allows(lesser, need))
}

/** The user of this name with these powers, through a token that has been narrowed to `token` if it has been. */
export function identityOf(name: string, user: Powers, token?: Powers): Identity {
  const rightOn =
    token === undefined
      ? (vault: string) => rightIn(user.grants, vault)
      : (vault: string) => narrower(rightIn(user.grants, vault), rightIn(token.grants, vault))
  const { metrics = false } = user
  return {
    name,
    rightOn,
    isOperator: rightOn(everyVault) === 'admin',
    mayReadMetrics: metrics && (token === undefined || token.metrics === true),
  }
}

/** `VAULT=RIGHT` or `*=RIGHT`. Problem `usage`. */
export function parseGrant(text: string): [vault: string, right: Right] {
  const at = text.lastIndexOf('=')
  const right = text.slice(at + 1)
  if (at < 1 || !isRight(right)) {
    throw new Problem('usage', `"${text.slice(0, 80)}" must be VAULT=RIGHT; a right is ${rightsInWords}`)
  }
  return [parseGrantedVault(text.slice(0, at)), right]
}

/** The name of a vault, or `*`. Problem `usage`. */
export function parseGrantedVault(text: string): string {
  if (text === everyVault) return text
  try {
    return parseVaultName(text)
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    throw new Problem('usage', `${cause.message}, or write * for every vault`, { cause })
  }
}

const rightsInWords = `${rights.slice(0, -1).join(', ')} or ${rights.at(-1)}`

function isRight(text: string): text is Right {
  return (rights as readonly string[]).includes(text)
}
