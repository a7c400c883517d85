/** Who is measured, all in one shape: where a measurement's requests go, and what is taken away behind it. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Id } from '../../protocol/id.ts'
import { run } from '../../test/clients/run-program.ts'
import { endProcess } from '../../test/support/dav-servers.ts'
import type { BuiltReceiver } from '../built-receiver.ts'
import type { Peer } from './peers.ts'

export type ContenderName = 'nginx' | 'Apache' | 'tree' | 'chunks' | 'bare'

export interface Contender {
  readonly name: ContenderName
  readonly port: number
  /** What is on its disk; undefined when it has none. */
  readonly folder: string | undefined
  /** A new collection for one measurement: its path, which ends in a slash. */
  makeCollection(): Promise<string>
  /** Where body `index` of that length and id stands in the collection. */
  pathOf(collection: string, index: number, bytes: number, id: Id | undefined): string
  removeCollection(collection: string): Promise<void>
}

export function peerContender({ name, port, folder }: Peer): Contender {
  let number = 0
  return {
    name,
    port,
    folder,
    makeCollection: async () => {
      number += 1
      await ask(port, 'MKCOL', `/m${number}/`)
      return `/m${number}/`
    },
    pathOf: (collection, index) => `${collection}file-${index}`,
    removeCollection: (collection) => rm(join(folder, collection), { recursive: true, force: true }),
  }
}

/** The live tree: what a WebDAV client of ours writes to. */
export async function treeContender({ port, dataDir }: BuiltReceiver): Promise<Contender> {
  let number = 0
  await ask(port, 'MKCOL', '/tree-requests/')
  return {
    name: 'tree',
    port,
    folder: dataDir,
    makeCollection: async () => {
      number += 1
      await ask(port, 'MKCOL', `/tree-requests/tree/m${number}/`)
      return `/tree-requests/tree/m${number}/`
    },
    pathOf: (collection, index) => `${collection}file-${index}`,
    // It goes to the trash, where it is in nobody's way.
    removeCollection: (collection) => ask(port, 'DELETE', collection),
  }
}

/**
 * The chunk resources: what a backup writes to. All measurements share one vault, and no chunk is sent twice. What the
 * others write is removed, and its memory used again; ours leaves the page cache. Else we alone would write to memory that
 * a virtual machine has not touched before, and must first get from its host: 2.5 ms a MiB instead of 0.2 (measured).
 */
export async function chunkContender({ port, dataDir }: BuiltReceiver): Promise<Contender> {
  await ask(port, 'MKCOL', '/chunk-requests/')
  const packs = join(dataDir, 'vaults', 'chunk-requests', 'packs')
  return {
    name: 'chunks',
    port,
    folder: dataDir,
    makeCollection: async () => '/chunk-requests/chunks/',
    pathOf: (collection, _index, _bytes, id) => `${collection}${id}`,
    removeCollection: async () => {
      for (const name of await readdir(packs)) {
        const options = ['oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none']
        await run('dd', [`of=${join(packs, name)}`, ...options])
      }
    },
  }
}

/** The bare server of Node: no disk, no names. */
export async function startBare(): Promise<Contender & AsyncDisposable> {
  const script = new URL('bare-server.ts', import.meta.url).pathname
  const child = fork(script, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const [port] = (await once(child, 'message')) as [number]
  return {
    name: 'bare',
    port,
    folder: undefined,
    makeCollection: async () => '/',
    pathOf: (_collection, _index, bytes) => `/${bytes}`,
    removeCollection: async () => {},
    [Symbol.asyncDispose]: () => endProcess(child),
  }
}

async function ask(port: number, method: string, path: string): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method })
  await answer.arrayBuffer()
  if (!answer.ok) throw new Error(`${method} ${path} was answered ${answer.status}`)
}
