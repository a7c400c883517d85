/** Whole backups to WebDAV servers, and back, in one call each. */
import { join } from 'node:path'
import { CheckpointDatabase } from '../../client/engine/checkpoint-database.ts'
import { type BackupSummary, Engine, type EngineOptions } from '../../client/engine/engine.ts'
import type { FileTarget } from '../../client/engine/file-target.ts'
import type { Source } from '../../client/engine/source.ts'
import { type RestoreSummary, restore } from '../../client/restore/restore.ts'
import { LocalDirSource } from '../../client/sources/local-dir-source.ts'
import { WebDavBackups } from '../../client/targets/webdav-backups.ts'
import { WebDavClient } from '../../client/targets/webdav-client.ts'
import { WebDavTarget } from '../../client/targets/webdav-target.ts'
import { parseWebDavUrl } from '../../client/targets/webdav-url.ts'
import { type DavProgram, davPrograms } from './dav-servers.ts'
import { startReceiver } from './receiver.ts'

/** Our own receiver's live tree. */
export const ownTree: DavProgram = {
  name: 'chunkdav',
  missing: undefined,
  start: async () => {
    const receiver = await startReceiver()
    const { stop, dataDir } = receiver
    const url = `${receiver.vaultUrl}/tree`
    return { url, folder: dataDir, requests: async () => [], stop, [Symbol.asyncDispose]: stop }
  },
}

export const allDavPrograms: readonly DavProgram[] = [...davPrograms, ownTree]

/** The URL for our client of the folder `backups` on a server at this URL. */
export function backupsUrl({ url }: { url: string }): string {
  return `webdav+${url}/backups`
}

export interface WebDavSetup {
  readonly url: string
  /** Where the client's database is. */
  readonly state: string
  readonly source?: string
  readonly options?: EngineOptions
  readonly wrapTarget?: (target: FileTarget) => FileTarget
  readonly wrapSource?: (source: Source) => Source
  readonly onEngine?: (engine: Engine) => void
}

export async function backUpToWebDav(from: string | Source, setup: WebDavSetup): Promise<BackupSummary> {
  const { url, state, source: name = 'test' } = setup
  const source = typeof from === 'string' ? await LocalDirSource.open([from]) : from
  const target = new WebDavTarget(new WebDavClient(parseWebDavUrl(url)), name)
  const database = await CheckpointDatabase.open(join(state, `${name}-files`))
  try {
    const wrapped = setup.wrapTarget?.(target) ?? target
    const engine = new Engine(setup.wrapSource?.(source) ?? source, wrapped, database, setup.options)
    setup.onEngine?.(engine)
    return await engine.run()
  } finally {
    await Promise.all([source.close(), target.close(), database.close()])
  }
}

export async function restoreFromWebDav(
  to: string,
  { url, source = 'test', number }: { url: string; source?: string; number: number },
): Promise<RestoreSummary> {
  const backups = new WebDavBackups(new WebDavClient(parseWebDavUrl(url)))
  try {
    const states = await backups.listCheckpoints(source)
    const checkpoint = states.find((state) => state.number === number)
    if (checkpoint === undefined) throw new Error(`there is no checkpoint ${number}`)
    return await restore({ client: backups, checkpoint, to })
  } finally {
    await backups.close()
  }
}

/** `target` with some methods replaced. */
export function wrapFileTarget(target: FileTarget, replaced: Partial<FileTarget>): FileTarget {
  return {
    capabilities: target.capabilities,
    get counters() {
      return target.counters
    },
    begin: (resume, about) => target.begin(resume, about),
    put: (path, content, signal) => target.put(path, content, signal),
    readBase: (signal) => target.readBase(signal),
    commit: (request, tree, signal) => target.commit(request, tree, signal),
    close: () => target.close(),
    ...replaced,
  }
}
