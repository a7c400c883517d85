/** What the routes have in common. */
import { type Id, parseId } from '../../protocol/id.ts'
import type { Limits } from '../../protocol/limits.ts'
import { checkpointHeader, parseCheckpointName } from '../../protocol/url.ts'
import type { Accounts } from '../access/accounts.ts'
import { allows, anybody } from '../access/identity.ts'
import type { Audit } from '../audit.ts'
import type { Claimant } from '../catalog/source-owner.ts'
import type { Budgets } from '../http/budgets.ts'
import { type Context, param } from '../http/context.ts'
import type { CuttingThreads } from '../store/cutting-thread.ts'
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
  readonly accounts: Accounts
  readonly audit: Audit
  readonly metrics: Metrics
  readonly health: HealthCheck
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

/**
 * Notes ids in the log of the checkpoint that the request names, if it names one. Problems
 * `checkpoint-not-found`, `checkpoint-committed`, and `forbidden` for another's, come from `touchFor` itself, before any body is read.
 */
export async function touchFor(ctx: Context, vault: Vault): Promise<(ids: readonly Id[]) => Promise<void>> {
  const header = ctx.get(checkpointHeader)
  if (header === '') return async () => {}
  const name = parseCheckpointName(header)
  vault.catalog.checkpoints.expectUsable(name.source, claimantOf(ctx))
  // As long as the request is under way, the checkpoint is not abandoned, however slowly the body comes.
  const leave = await vault.catalog.checkpoints.enter(name)
  if (ctx.res.closed) leave()
  else ctx.res.once('close', leave)
  return (ids) => vault.catalog.checkpoints.touch(name, ids)
}
