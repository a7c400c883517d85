/** A folder that was made is only there after a power cut when the folder around it was synced. */
import { readlinkSync } from 'node:fs'
import { type FileHandle, mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openReceiver } from '../../server/index.ts'

let base: string
let synced: Set<string>
let prototype: FileHandle
let sync: FileHandle['sync']

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'chunkdav-sync-'))
  synced = new Set()
  const handle = await open(base, 'r')
  prototype = Object.getPrototypeOf(handle)
  await handle.close()
  sync = prototype.sync
  prototype.sync = async function (this: FileHandle): Promise<void> {
    synced.add(relative(base, readlinkSync(`/proc/self/fd/${this.fd}`)))
    await sync.call(this)
  }
})
afterEach(async () => {
  prototype.sync = sync
  await rm(base, { recursive: true })
})

const linuxOnly = test.skipIf(process.platform !== 'linux')

linuxOnly('every folder down to a source’s is named durably', async () => {
  const receiver = await openReceiver({ dataDir: join(base, 'a', 'data'), port: 0 })
  await receiver.vaults.create('home')
  const { catalog } = await receiver.vaults.get('home')
  await catalog.checkpoints.begin('host', { kind: 'dir' })
  await receiver.close()
  const around = ['', 'a', 'a/data', 'a/data/vaults', 'a/data/vaults/home', 'a/data/vaults/home/checkpoints']
  expect([...synced]).toEqual(expect.arrayContaining(around))
})

linuxOnly('also when a process before this one made the folders and died before it synced them', async () => {
  await mkdir(join(base, 'data', 'vaults', 'home', 'checkpoints', 'host'), { recursive: true })
  const receiver = await openReceiver({ dataDir: join(base, 'data'), port: 0 })
  await receiver.vaults.get('home')
  await receiver.close()
  const around = ['', 'data', 'data/vaults', 'data/vaults/home', 'data/vaults/home/checkpoints']
  expect([...synced]).toEqual(expect.arrayContaining(around))
})
