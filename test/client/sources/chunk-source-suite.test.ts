import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'vitest'
import { makeFifo } from '../../../client/posix.ts'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { type SourceSubject, sourceSuite } from '../../conformance/source-suite.ts'
import { seededBytes, temporaryFolder } from '../../support/tree.ts'

async function file(bytes: number): Promise<SourceSubject> {
  const folder = await temporaryFolder()
  const path = join(folder.path, 'image')
  const content = seededBytes(`stream ${bytes}`, bytes)
  writeFileSync(path, content)
  return {
    files: new Map([['disk.img', content]]),
    others: new Map(),
    open: () => ChunkSource.open(path, { name: 'disk.img' }),
    dispose: async () => {
      await folder[Symbol.asyncDispose]()
    },
  }
}

/** A fifo, and a process that writes into it as soon as somebody reads. */
async function fifo(bytes: number): Promise<SourceSubject> {
  const folder = await temporaryFolder()
  const path = join(folder.path, 'pipe')
  const content = seededBytes(`fifo ${bytes}`, bytes)
  writeFileSync(join(folder.path, 'content'), content)
  makeFifo(Buffer.from(path), 0o600)
  const writer = spawn('sh', ['-c', 'exec cat content > pipe'], { cwd: folder.path, stdio: 'ignore' })
  const exited = once(writer, 'exit')
  return {
    files: new Map([['pipe', content]]),
    others: new Map(),
    open: () => ChunkSource.open(path),
    dispose: async () => {
      writer.kill('SIGKILL')
      await exited
      await folder[Symbol.asyncDispose]()
    },
  }
}

describe('a file as a stream', () => sourceSuite({ describe, it }, { create: () => file(9_500_000) }))
describe('an empty file as a stream', () => sourceSuite({ describe, it }, { create: () => file(0) }))
describe('a fifo', () => sourceSuite({ describe, it }, { create: () => fifo(9_500_000), once: true }))
describe('an empty fifo', () => sourceSuite({ describe, it }, { create: () => fifo(0), once: true }))
