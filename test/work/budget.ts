/**
 * How much work may be done. A budget is what several runs took, the least and the most of them; how much room there is
 * around that is said here and nowhere else, so that none is made wider because of one run.
 */
import type { Counts } from './scenario.ts'

/** What all runs took, or from so many up to so many. */
export type Budget = number | readonly [least: number, most: number]
export type Budgets = Readonly<Record<string, Budget>>

/**
 * What does not keep to its budget, a line each. Less work than the least is told too: a budget that is not lowered
 * then would let the same amount come back unseen.
 */
export function deviations(counts: Counts, budgets: Budgets): string[] {
  const lines: string[] = []
  for (const name of new Set([...Object.keys(budgets), ...Object.keys(counts)])) {
    const count = counts[name] ?? 0
    const [least, most] = allowed(name, budgets[name] ?? 0)
    const was = least === most ? `${least}` : `${least} to ${most}`
    if (count > most) lines.push(`${name} rose from ${was} to ${count}`)
    if (count < least) lines.push(`${name} fell from ${was} to ${count}: lower the budget, so that it stays`)
  }
  return lines
}

interface Room {
  /** By which part a count may rise or fall, and by how many beside. */
  readonly part: number
  readonly more: number
}

/** For what differs from machine to machine, or with who is faster, though it was the same in all runs here. */
const roomOf: readonly [RegExp, Room][] = [
  // How many rows come together before they go to LevelDB's log.
  [/database bytesWritten$/, { part: 0.05, more: 64 }],
  // The same, a call more or less: one run of six had it.
  [/database calls$/, { part: 0, more: 2 }],
  // Names of hosts and folders, numbers of users in directory objects, and how those compress.
  [/bytes/i, { part: 0.01, more: 64 }],
  // Libraries grow, and so does the program.
  [/modules calls$/, { part: 0.1, more: 0 }],
  // How much one read from a socket brings.
  [/sockets calls$/, { part: 0.1, more: 5 }],
]
/** For anything else that differed between the runs: how full a batch is when it is sent, and what follows from that. */
const roomOfVarying: Room = { part: 0.05, more: 1 }
const noRoom: Room = { part: 0, more: 0 }

/** The least and the most that a budget allows: beside its room half of what the runs differed by, since there were few. */
export function allowed(name: string, budget: Budget): readonly [least: number, most: number] {
  const [least, most] = typeof budget === 'number' ? [budget, budget] : budget
  const room = roomOf.find(([pattern]) => pattern.test(name))?.[1]
  // What is not done at all has no reason to differ.
  const { part, more } = most === 0 ? noRoom : (room ?? (least === most ? noRoom : roomOfVarying))
  const around = more + (most - least) / 2
  return [Math.max(0, Math.floor(least - least * part - around)), Math.ceil(most + most * part + around)]
}

/** The budgets of these runs of one step. */
export function budgetsOf(runs: readonly Counts[]): Record<string, Budget> {
  const budgets: Record<string, Budget> = {}
  for (const name of new Set(runs.flatMap((counts) => Object.keys(counts)))) {
    const counts = runs.map((run) => run[name] ?? 0)
    const [least, most] = [Math.min(...counts), Math.max(...counts)]
    budgets[name] = least === most ? least : [least, most]
  }
  return budgets
}
