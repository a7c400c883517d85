/** Who asks, and what they may do. The table of what each request needs is in needs.ts. */

/** What somebody may do in one vault, least first; `rank` does not order them: append-only may not read. */
export const rights = ['read', 'append-only', 'append+read', 'write', 'admin'] as const
export type Right = (typeof rights)[number]

/**
 * What a request needs:
 * - `see`: that the vault is there, what it can do, the names and states of its checkpoints;
 * - `restore`: what is stored, by any way of reading it;
 * - `back-up`: to ask what is missing, send it, and commit it under a source of one's own;
 * - `change`: the live tree, its trash, pins, deletions, anybody's source;
 * - `administer`: upkeep, retention, creating the vault.
 */
export const needs = ['see', 'restore', 'back-up', 'change', 'administer'] as const
export type Need = (typeof needs)[number]

const allowed: Readonly<Record<Right, readonly Need[]>> = {
  read: ['see', 'restore'],
  'append-only': ['see', 'back-up'],
  'append+read': ['see', 'restore', 'back-up'],
  write: ['see', 'restore', 'back-up', 'change'],
  admin: needs,
}

/** Whether the right is enough. */
export function allows(right: Right, need: Need): boolean {
  return allowed[right].includes(need)
}

export interface Identity {
  /** For the log, the audit and the owner of a source. */
  readonly name: string
  /** Undefined: to them the vault does not exist. */
  rightOn(vault: string): Right | undefined
  /** Admin of every vault: may also set quotas, and see the whole disk. */
  readonly isOperator: boolean
  readonly mayReadMetrics: boolean
}

/** Whoever reaches a receiver that has no users. */
export const anybody: Identity = {
  name: 'anybody',
  rightOn: () => 'admin',
  isOperator: true,
  mayReadMetrics: true,
}

/** Whoever did not say who they are to a receiver that has users: may do what is for anyone. */
export const nobody: Identity = {
  name: 'nobody',
  rightOn: () => undefined,
  isOperator: false,
  mayReadMetrics: false,
}
