/** What came of a job stands in a file; a job does not fail for want of it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Job } from '../../../server/upkeep/jobs.ts'
import { FaultyFiles } from '../../support/faulty-files.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chunkdav-jobs-'))
})
afterEach(() => rm(folder, { recursive: true }))

test.each([
  ['ENOSPC', []],
  ['EDQUOT', []],
  ['EIO', ['EIO']],
  ['EACCES', ['EACCES']],
])('a job whose end cannot be written for %s is done; told of is %j', async (code, told) => {
  const files = new FaultyFiles()
  const faults: unknown[] = []
  const onFault = (error: unknown) => faults.push((error as NodeJS.ErrnoException).code)
  const open = () => Job.open(folder, 'test', 0, (progress) => progress, { files, onFault })
  const job = await open()
  files.fail('datasync', code)
  const { last } = await job.start(async () => 7).ended
  expect([last?.outcome, last?.report, faults]).toEqual(['done', 7, told])
  expect((await open()).state).toEqual({})
  await job.start(async () => 8).ended
  expect((await open()).state.last).toMatchObject({ outcome: 'done', report: 8 })
  await job.close()
})
