/** The lines of the audit: what is in them looks like what it is. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Audit } from '../../server/audit.ts'
import { startReceiver } from '../support/receiver.ts'
import { begin, post, put, smallTree } from './requests.ts'

const linesOf = async (dataDir: string): Promise<string[]> =>
  (await readFile(join(dataDir, 'audit.jsonl'), 'utf8')).trimEnd().split('\n')

test.each([
  ['turned around', 'ad\u202enim', 'ad\\u202enim'],
  ['of no width', 'a\u200bb\ufeff', 'a\\u200bb\\ufeff'],
  ['line separators', 'a\u2028b\u2029c', 'a\\u2028b\\u2029c'],
  ['beyond the first plane', 'a\u{e0041}b', 'a\\udb40\\udc41b'],
  ['as it is', 'Zoë 😀', 'Zoë 😀'],
])('a name that is %s', async (_, who, written) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-audit-'))
  try {
    const audit = await Audit.open(dataDir)
    audit.note({ event: 'login-failed', who })
    await audit.close()
    const [line = ''] = await linesOf(dataDir)
    expect(line).toContain(`"who":"${written}"`)
    expect(JSON.parse(line).who).toBe(who)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})

test('deletions of open checkpoints are not in it, those of committed ones are', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-audit-'))
  try {
    const server = await startReceiver({ dataDir })
    const tree = smallTree()
    for (const part of tree.chunks) await put(server, 'chunks', part)
    for (let round = 0; round < 2; round++) {
      const path = await begin(server, 's', 'chunks')
      if (round === 1) expect((await post(server, `${path}/commit`, { items: 0 })).status).toBe(200)
      expect((await fetch(`${server.vaultUrl}/${path}`, { method: 'DELETE' })).status).toBe(204)
    }
    await server.stop()
    const deleted = (await linesOf(dataDir))
      .map((line) => JSON.parse(line))
      .filter(({ event }) => event === 'checkpoint-deleted')
    expect(deleted.map(({ number }) => number)).toEqual([2])
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})
