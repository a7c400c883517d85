/** What the routes have in common. */
import { type Id, parseId } from '../../protocol/id.ts'
import type { Limits } from '../../protocol/limits.ts'
import { checkpointHeader, parseCheckpointName } from '../../protocol/url.ts'
import type { Accounts } from '../access/accounts.ts'
import { allows, anybody } from '../access/identity.ts'
import type { Audit } from '../audit.ts'
import type { Claimant } from '../catalog/source-owner.ts'
import type { Budgets } from '../http/budgets.ts'
import { overSignal } from '../http/client-gone.ts'
import { clientOf } from '../http/client-name.ts'
import { type Context, param } from '../http/context.ts'
import type { Lease } from '../store/collectable.ts'
import type { CuttingThreads } from '../store/cutting-thread.ts'
import type { VerifyingThreads } from '../store/verifying-thread.ts'
import type { Vault, Vaults } from '../vaults.ts'
import type { HealthCheck } from '../watch/health.ts'
import type { Metrics } from '../watch/metrics.ts'

/** The collaborators of every route. */
export interface Parts extends Budgets {
  readonly vaults: Vaults
  readonly limits: Limits
  readonly version: string
  /** Cuts and hashes what is uploaded as a file. */
  readonly cutting: CuttingThreads
  /** Decodes and hashes what comes in batches. */
  readonly verifying: VerifyingThreads
  readonly accounts: Accounts
  readonly audit: Audit
  readonly metrics: Metrics
  readonly health: HealthCheck
  /** When the schedule begins the next garbage collections; undefined when it never does. */
  readonly nextCollection: () => Date | undefined
}

/** The vault that the path names, open. */
export async function vaultOf(parts: Parts, ctx: Context): Promise<Vault> {
  return await parts.vaults.get(param(ctx, 'vault'))
}

export function idOf(ctx: Context): Id {
  return parseId(param(ctx, 'id'))
}

/** Who asks, for the sources of the vault that the path names. */
export function claimantOf(ctx: Context): Claimant {
  const { who } = ctx.state
  const right = who.rightOn(param(ctx, 'vault'))
  return {
    name: who === anybody ? undefined : who.name,
    mayUseAny: right !== undefined && allows(right, 'change'),
  }
}

/** Notes ids in the log of an open checkpoint. */
export interface Touch {
  /**
   * To be told of every id before it is looked for or stored. Until the answer has left it is kept by garbage
   * collection: from then on by the log.
   */
  readonly lease: Lease
  /** Writes the ids that were found or stored into the log; `isContent` as in `Checkpoints.touch`. */
  note(ids: readonly Id[], isContent?: (id: Id) => boolean): Promise<void>
}

export const noTouch: Touch = { lease: { add() {}, release() {} }, note: async () => {} }

/**
 * Notes ids in the log of the checkpoint that the request names, if it names one. Problems
 * `checkpoint-not-found`, `checkpoint-committed`, and `forbidden` for another's, come from `touchFor` itself, before any body is read.
 */
export async function touchFor(
  parts: Pick<Parts, 'vaults'>,
  ctx: Context,
  vault: Vault,
  ...ids: readonly Id[]
): Promise<Touch> {
  const header = ctx.get(checkpointHeader)
  if (header === '') return noTouch
  const name = parseCheckpointName(header)
  const { checkpoints } = vault.catalog
  checkpoints.expectUsable(name.source, claimantOf(ctx))
  await parts.vaults.expectRoom()
  checkpoints.expectSpace()
  // As long as the request is under way, the checkpoint is not abandoned, however slowly the body comes.
  const leave = await checkpoints.enter(name)
  const lease = vault.store.lease()
  for (const id of ids) lease.add(id)
  const end = (): void => {
    leave()
    lease.release()
  }
  if (ctx.res.closed) end()
  else ctx.res.once('close', end)
  return { lease, note: (noted, isContent) => checkpoints.touch(name, noted, isContent) }
}

/** Runs `walk` over what an object or a checkpoint reaches when it is the client's turn: others want to walk as well. */
export async function inWalk<T>({ walks }: Parts, ctx: Context, walk: () => Promise<T>): Promise<T> {
  const turn = await walks.take(1, `${param(ctx, 'vault')} ${clientOf(ctx)}`, overSignal(ctx))
  try {
    return await walk()
  } finally {
    turn.release()
  }
}
