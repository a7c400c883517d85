import type { Context } from '../http/context.ts'
import { storedBytesOf, type Vault } from '../vaults.ts'
import type { Parts } from './parts.ts'

const GiB = 1024 ** 3

/**
 * Bytes that the vault may still grow by, as far as who asks may know: what is left of its quota, and of the disk beside its reserve. The
 * disk is shared: to the byte it would tell what others store, so only operators see more than whole GiB of it.
 */
export async function freeBytesOf(
  { vaults }: Pick<Parts, 'vaults'>,
  ctx: Context,
  vault: Pick<Vault, 'store' | 'catalog' | 'settings'>,
): Promise<number> {
  const free = await vaults.freeBytes()
  const shown = ctx.state.who.isOperator ? free : Math.floor(free / GiB) * GiB
  const { quotaBytes } = vault.settings
  if (quotaBytes === undefined) return shown
  return Math.min(shown, Math.max(0, quotaBytes - storedBytesOf(vault)))
}
