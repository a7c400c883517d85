import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Problem } from '../../protocol/problem.ts'
import { ContentIndex } from '../store/content-index.ts'
import { PackChunkStore, type PackChunkStoreOptions } from '../store/pack-chunk-store.ts'
import type { DamagedStretch } from '../store/recovery.ts'
import { isVaultName } from '../vaults.ts'

export interface ReindexReport {
  readonly packs: number
  readonly blocks: number
  readonly chunks: number
  /** Stretches of the packs that hold no block whose chunks all hash to their ids. */
  readonly damaged: readonly DamagedStretch[]
}

/**
 * Throws one vault's content index away and builds it again from the packs: the recovery of every opening,
 * from the first pack on, with each chunk hashed. Damaged blocks are left out and reported; the next backup
 * sends their chunks again. Durable on return. Problem `in-use` while a receiver has the vault open.
 */
export async function reindex(
  vaultDir: string,
  options: Pick<PackChunkStoreOptions, 'files'> = {},
): Promise<ReindexReport> {
  await ContentIndex.remove(join(vaultDir, 'index'))
  const store = await PackChunkStore.open(vaultDir, { ...options, verify: true })
  const { recovered, usage } = store
  await store.close()
  return {
    packs: recovered?.packs ?? 0,
    blocks: recovered?.blocks ?? 0,
    chunks: usage.chunks,
    damaged: recovered?.damaged ?? [],
  }
}

/**
 * `reindex` for every vault below a receiver's data directory, one after the other, in order of their
 * names. Problem `vault-not-found` when `dataDir` is no data directory.
 */
export async function* reindexAll(dataDir: string): AsyncGenerator<{ vault: string; report: ReindexReport }> {
  for (const vault of await vaultNames(dataDir)) {
    yield { vault, report: await reindex(join(dataDir, 'vaults', vault)) }
  }
}

async function vaultNames(dataDir: string): Promise<string[]> {
  try {
    const folders = await readdir(join(dataDir, 'vaults'), { withFileTypes: true })
    const names = folders.filter((folder) => folder.isDirectory()).map(({ name }) => name)
    return names.filter(isVaultName).sort()
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOENT')) throw cause
    throw new Problem('vault-not-found', `${dataDir} has no folder "vaults"; is it a data directory?`, {
      cause,
    })
  }
}
