/** What the routes have in common. */
import { type Id, parseId } from '../../protocol/id.ts'
import type { Limits } from '../../protocol/limits.ts'
import { checkpointHeader, parseCheckpointName } from '../../protocol/url.ts'
import type { Accounts } from '../access/accounts.ts'
import type { Audit } from '../audit.ts'
import { type Context, param } from '../http/context.ts'
import type { MemoryBudget } from '../http/memory-budget.ts'
import { anybody, allows } from '../access/identity.ts'
import type { Claimant } from '../catalog/source-owner.ts'
import type { CuttingThreads } from '../store/cutting-thread.ts'
import type { Vault, Vaults } from '../vaults.ts'
import type { HealthCheck } from '../watch/health.ts'
import type { Metrics } from '../watch/metrics.ts'

/** The collaborators of every route. */
export interface Parts {
  readonly vaults: Vaults
  readonly limits: Limits
  readonly version: string
  /** For bodies of chunks, batches and objects. */
  readonly uploads: MemoryBudget
  /** For other bodies, all short. Apart, so that uploads do not stop what ends them, such as a commit. */
  readonly questions: MemoryBudget
  /** For what is read from the store and waits to be sent. Apart, so that slow readers do not stop uploads. */
  readonly downloads: MemoryBudget
  /** For listings that wait to be sent: little each. Apart, so that slow readers of content do not hide what there is. */
  readonly listings: MemoryBudget
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
  await vault.catalog.checkpoints.expectOpen(name)
  return (ids) => vault.catalog.checkpoints.touch(name, ids)
}
