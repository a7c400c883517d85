/** Applies the retention policies of a vault to its checkpoints. */
import type { Logger } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointState, PruneAnswer, PrunedSource } from '../../protocol/schema.ts'
import type { Vault } from '../vaults.ts'
import { retain } from './retention.ts'

export interface PruneOptions {
  /** Removes nothing. */
  readonly dryRun?: boolean | undefined
  /** This one only. */
  readonly source?: string | undefined
  readonly now?: Date
  /** Ends it between two deletions: the answer tells what was done. */
  readonly signal?: AbortSignal
}

/** Under one lock of the source: other clients wait for it. */
const deletedAtOnce = 50

type Committed = CheckpointState & { readonly committedAt: string }

/**
 * On return what the answer calls removed is gone, durably. Backups, deletions and pins may go on meanwhile; what
 * they changed under it is kept. Problems: `checkpoint-not-found` for a source without checkpoints; `store-corrupt`
 * when the settings are damaged, before anything is removed.
 */
export async function prune(
  { catalog: { checkpoints }, settings }: Pick<Vault, 'catalog' | 'settings'>,
  { dryRun = false, source: only, now = new Date(), signal }: PruneOptions = {},
): Promise<PruneAnswer> {
  const { timeZone } = settings.value
  const known = await checkpoints.listSources()
  if (only !== undefined && !known.includes(only)) {
    throw new Problem('checkpoint-not-found', `there are no checkpoints of ${only}`)
  }
  const sources: PrunedSource[] = []
  for (const source of only === undefined ? known : [only]) {
    if (signal?.aborted) break
    const retention = settings.retentionOf(source)
    const committed = (await checkpoints.list(source)).filter(isCommitted)
    const verdict = retain(committed, retention, now, timeZone)
    const kept: PrunedSource['kept'] = verdict.kept.map(({ checkpoint, reasons }) => ({
      ...shown(checkpoint),
      reasons: [...reasons],
    }))
    const gone = new Set(dryRun ? verdict.removed.map(({ number }) => number) : [])
    // The oldest first: whatever stops this leaves what is worth more.
    for (
      let first = 0;
      first < verdict.removed.length && !dryRun && !signal?.aborted;
      first += deletedAtOnce
    ) {
      const some = verdict.removed.slice(first, first + deletedAtOnce).map(({ number }) => number)
      for (const number of await checkpoints.deleteOld(source, some)) gone.add(number)
    }
    const left = verdict.removed.filter(({ number }) => !gone.has(number))
    kept.push(...left.map((checkpoint) => ({ ...shown(checkpoint), reasons: ['unjudged' as const] })))
    kept.sort((a, b) => a.number - b.number)
    sources.push({
      source,
      retention,
      kept,
      removed: verdict.removed.filter(({ number }) => gone.has(number)).map(shown),
    })
  }
  const count = (list: (source: PrunedSource) => readonly unknown[]): number =>
    sources.reduce((sum, source) => sum + list(source).length, 0)
  return { dryRun, kept: count(({ kept }) => kept), removed: count(({ removed }) => removed), sources }
}

/**
 * Whether a vault may be pruned by itself; otherwise the log is told why. While content is missing, or may be, older
 * backups can be the only ones that are whole: only a person removes some then.
 */
export function mayPruneItself({ scrub }: Pick<Vault, 'scrub'>, log: Pick<Logger, 'warn'>): boolean {
  if (!scrub.isInDoubt) return true
  log.warn('not pruned: content of the vault is missing, or may be; run chunkdav check, and back up again')
  return false
}

function isCommitted(state: CheckpointState): state is Committed {
  return state.state === 'committed' && state.committedAt !== undefined
}

function shown({ number, committedAt }: Committed): { number: number; committedAt: string } {
  return { number, committedAt }
}

/** What the audit and the log tell of it: per source the numbers that were removed, as many as make a line. */
export function prunedNumbers({ sources }: PruneAnswer): Record<string, number[]> {
  return Object.fromEntries(
    sources.flatMap(({ source, removed }) =>
      removed.length === 0 ? [] : [[source, removed.slice(0, 1000).map(({ number }) => number)]],
    ),
  )
}
