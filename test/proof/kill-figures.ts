/** What a kill proof counts, and how it tells of it. */
import type { LogBook } from './kill-process.ts'

/** What all clients did, and how it ended. */
export interface KillTally {
  backups: number
  frozen: number
  treeChanges: number
  prunes: number
  pruned: number
  deleted: number
  collectionsAsked: number
  restored: number
  bytesSent: number
  /** Commits that were asked for and not answered yet: when, as of performance.now(). */
  readonly commitsSince: Set<number>
  /** What requests and backups failed with, but for the receiver being away. */
  readonly refusals: Map<string, number>
}

export interface KillFigures extends KillTally {
  kills: number
  /** Of these, how many hit a collection that ran. */
  inCollection: number
  /** Of those, how many hit the part that gives space back. */
  inSweep: number
  inCommit: number
  /** Nobody had been answered yet. */
  inStart: number
  collectionsDone: number
  freedBytes: number
  movedBytes: number
  readonly requests: number
  readonly bytesIn: number
  quickChecks: number
  fullChecks: number
  /** At the end, when all was deleted: bytes of packs, and collections that it took. */
  leftBytes: number
  lastCollections: number
  readonly removed: LogBook['removed']
  readonly logKinds: ReadonlyMap<string, number>
  readonly doctorWarnings: Set<string>
  readonly failures: string[]
  seconds: number
}

export function noFigures(book: LogBook): KillFigures {
  return {
    backups: 0,
    frozen: 0,
    treeChanges: 0,
    prunes: 0,
    pruned: 0,
    deleted: 0,
    collectionsAsked: 0,
    restored: 0,
    bytesSent: 0,
    commitsSince: new Set(),
    refusals: new Map(),
    kills: 0,
    inCollection: 0,
    inSweep: 0,
    inCommit: 0,
    inStart: 0,
    collectionsDone: 0,
    freedBytes: 0,
    movedBytes: 0,
    get requests() {
      return book.requests
    },
    get bytesIn() {
      return book.bytesIn
    },
    quickChecks: 0,
    fullChecks: 0,
    leftBytes: 0,
    lastCollections: 0,
    removed: book.removed,
    logKinds: book.kinds,
    doctorWarnings: new Set(),
    failures: [],
    seconds: 0,
  }
}

export function progressOf({ kills, backups, ...figures }: KillFigures): string {
  const { inCollection, inCommit, inStart, failures } = figures
  return `${kills} kills (${inCollection} in a collection, ${inCommit} in a commit, ${inStart} in a start), ${backups} backups, ${failures.length} failures`
}

export function reportOf(figures: KillFigures): string[] {
  const { removed, failures } = figures
  const lines: Record<string, string> = {
    kills: `${figures.kills}: ${figures.inCollection} in a running collection (${figures.inSweep} of them while it gave space back), ${figures.inCommit} in a commit, ${figures.inStart} before the first answer of a start`,
    backups: `${figures.backups} committed, ${figures.frozen} freezes, ${figures.treeChanges} changes of the live tree`,
    removed: `${figures.pruned} by ${figures.prunes} prunes that were answered, ${figures.deleted} by deletions`,
    upkeep: `${removed.pruned} checkpoints and ${removed.trash} items of the trash removed, ${removed.expired} open checkpoints expired`,
    collections: `${figures.collectionsAsked} asked for; ${figures.collectionsDone} seen done, ${figures.inCollection} interrupted by a kill`,
    bytes: `${MiB(figures.bytesSent)} sent by backups that were committed, ${MiB(figures.bytesIn)} received in ${figures.requests} requests`,
    'given back': `${MiB(figures.freedBytes)} by the collections that were seen to end, ${MiB(figures.movedBytes)} moved`,
    checks: `${figures.quickChecks} after starts, ${figures.fullChecks} of everything; ${figures.restored} checkpoints read back`,
    'at the end': `${figures.leftBytes} bytes of packs after ${figures.lastCollections} collections`,
    refusals: shown(figures.refusals),
    log: shown(figures.logKinds),
    doctor: [...figures.doctorWarnings].slice(0, 5).join('; ') || 'no warnings',
    failures: String(failures.length),
    seconds: figures.seconds.toFixed(0),
  }
  return Object.entries(lines).map(([name, text]) => `${name.padEnd(12)} ${text}`)
}

function MiB(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}

function shown(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([kind, count]) => `${count} × ${kind}`).join(', ') || 'nothing'
}
