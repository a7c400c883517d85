/** A whole backup and a whole restore in one call each, for tests. */
import { join } from 'node:path'
import { CheckpointDatabase } from '../../client/engine/checkpoint-database.ts'
import { type BackupSummary, Engine, type EngineOptions } from '../../client/engine/engine.ts'
import type { Source } from '../../client/engine/source.ts'
import type { Target } from '../../client/engine/target.ts'
import type { TransportOptions } from '../../client/http.ts'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { type RestoreSummary, restore } from '../../client/restore/restore.ts'
import { LocalDirSource } from '../../client/sources/local-dir-source.ts'
import { ChunkTarget } from '../../client/targets/chunk-target.ts'
import { DirTarget } from '../../client/targets/dir-target.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'

export interface BackupSetup {
  readonly vaultUrl: string
  /** Where the client's database is. */
  readonly state: string
  readonly source?: string
  readonly as?: 'dir' | 'chunks'
  readonly options?: EngineOptions
  readonly transport?: TransportOptions
  /** Stands between the engine and the real target. */
  readonly wrapTarget?: (target: Target) => Target
  readonly wrapSource?: (source: Source) => Source
  /** Is given the engine before it runs. */
  readonly onEngine?: (engine: Engine) => void
}

export async function backUp(from: string | Source, setup: BackupSetup): Promise<BackupSummary> {
  const { vaultUrl, state, source: name = 'test', as = 'dir' } = setup
  const source = typeof from === 'string' ? await LocalDirSource.open([from]) : from
  const client = new ReceiverClient(parseVaultUrl(vaultUrl), setup.transport)
  const target = as === 'dir' ? new DirTarget(client, name) : new ChunkTarget(client, name)
  const database = await CheckpointDatabase.open(join(state, `${name}-${as}`))
  try {
    const wrapped = setup.wrapTarget?.(target) ?? target
    const engine = new Engine(setup.wrapSource?.(source) ?? source, wrapped, database, setup.options)
    setup.onEngine?.(engine)
    return await engine.run()
  } finally {
    await Promise.all([source.close(), target.close(), database.close()])
  }
}

export async function restoreTo(
  to: string,
  { vaultUrl, source = 'test', number }: { vaultUrl: string; source?: string; number: number },
): Promise<RestoreSummary> {
  const client = new ReceiverClient(parseVaultUrl(vaultUrl))
  try {
    const checkpoint = await client.getCheckpoint({ source, number })
    return await restore({ client, checkpoint, to })
  } finally {
    await client.close()
  }
}

/** `target` with some methods replaced. */
export function wrapTarget(target: Target, replaced: Partial<Target>): Target {
  return {
    capabilities: target.capabilities,
    get counters() {
      return target.counters
    },
    begin: (resume, about) => target.begin(resume, about),
    put: (chunks) => target.put(chunks),
    addItems: (first, items) => target.addItems(first, items),
    read: (ids, signal) => target.read(ids, signal),
    commit: (request) => target.commit(request),
    close: () => target.close(),
    ...replaced,
  }
}

/** `source` with some methods replaced. */
export function wrapSource(source: Source, replaced: Partial<Source>): Source {
  return {
    capabilities: source.capabilities,
    about: source.about,
    scan: (signal) => source.scan(signal),
    fill: (files, signal) => source.fill(files, signal),
    close: () => source.close(),
    ...replaced,
  }
}
