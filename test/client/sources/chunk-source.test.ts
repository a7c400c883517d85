/** Streams that say nothing for long, are no files, or come through standard input. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { makeFifo } from '../../../client/posix.ts'
import { ChunkSource } from '../../../client/sources/chunk-source.ts'
import { sourceStat } from '../../../client/sources/lstat.ts'
import { hashId } from '../../../protocol/hash.ts'
import { collect } from '../../conformance/chunk-store-suite.ts'
import { filesOf, reading, walkOf, within } from '../../conformance/source-suite.ts'
import { seededBytes, temporaryFolder } from '../../support/tree.ts'

/** Starts to read `source`; the promise settles when reading ends, with its error if there is one. */
async function startReading(source: ChunkSource, signal: AbortSignal) {
  const files = filesOf(await walkOf(source))
  const ended = (async () => {
    for await (const { release } of source.fill(files, signal)) release()
  })()
  return ended.then(
    () => undefined,
    (error: unknown) => error,
  )
}

for (const [what, write] of [
  ['that nobody writes to', undefined],
  ['whose writer is silent', 'so far'],
  // Each piece comes before reading would look whether anybody still wants it.
  ['whose writer drips', 'drip'],
] as const) {
  for (const how of ['abort', 'close'] as const) {
    test(`a fifo ${what}: ${how} ends reading`, async () => {
      await using folder = await temporaryFolder()
      const path = join(folder.path, 'pipe')
      makeFifo(Buffer.from(path), 0o600)
      const source = await ChunkSource.open(path)
      const abort = new AbortController()
      const reading = startReading(source, abort.signal)
      await sleep(300)
      // Opening for both never waits.
      const writer = write === undefined ? undefined : openSync(path, 'r+')
      const tell = (): void => void (writer !== undefined && writeSync(writer, write as string))
      const drip = write === 'drip' ? setInterval(tell, 20) : undefined
      try {
        tell()
        await sleep(50)
        if (how === 'abort') abort.abort()
        await within(source.close(), 'close')
        expect(await within(reading, 'reading')).toBeInstanceOf(Error)
      } finally {
        clearInterval(drip)
        if (writer !== undefined) closeSync(writer)
      }
    })
  }
}

test('a fifo is read to its end, whenever its writer comes', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'pipe')
  makeFifo(Buffer.from(path), 0o600)
  const source = await ChunkSource.open(path)
  try {
    const files = filesOf(await walkOf(source))
    const record = reading(source, files)
    const writer = spawn('sh', ['-c', 'sleep 0.3; (echo one; sleep 0.3; echo two) > pipe'], {
      cwd: folder.path,
      stdio: 'ignore',
    })
    await once(writer, 'exit')
    expect(Buffer.concat((await record).files[0]?.pieces ?? []).toString()).toBe('one\ntwo\n')
  } finally {
    await source.close()
  }
})

test('standard input is read to its end', async () => {
  await using folder = await temporaryFolder()
  const content = seededBytes('stdin', 9_100_000)
  writeFileSync(join(folder.path, 'content'), content)
  const module = fileURLToPath(new URL('../../../client/sources/chunk-source.ts', import.meta.url))
  const program = `
    import { ChunkSource } from ${JSON.stringify(module)}
    const source = await ChunkSource.open('-', { name: 'dump.sql' })
    const [events] = await Array.fromAsync(source.scan())
    const [{ name, stat }] = events[1].entries
    for await (const { events, release } of source.fill([{ path: name, stat }], new AbortController().signal)) {
      for (const event of events) if (event.type === 'done') console.log(name.toString(), event.bytesRead, event.stat.size, event.digest)
      release()
    }
    await source.close()`
  writeFileSync(join(folder.path, 'program.mjs'), program)
  const run = async (command: string): Promise<string> => {
    const child = spawn('sh', ['-c', command, 'sh', process.execPath], { cwd: folder.path })
    // The other commands never look at it.
    child.stdin.on('error', (error: NodeJS.ErrnoException) => expect(error.code).toBe('EPIPE'))
    child.stdin.end(content)
    return (await collect(child.stdout as AsyncIterable<Buffer>)).join('').trim()
  }
  const expected = `dump.sql ${content.length} ${content.length} ${hashId(content)}`
  // A socket, a pipe, a file, and nothing.
  const outputs = await Promise.all(
    [
      '"$1" program.mjs',
      'cat content | "$1" program.mjs',
      '"$1" program.mjs < content',
      '"$1" program.mjs < /dev/null',
    ].map(run),
  )
  expect(outputs).toEqual([expected, expected, expected, `dump.sql 0 0 ${hashId(Buffer.alloc(0))}`])
})

test('what is named must be there and be a stream', async () => {
  await using folder = await temporaryFolder()
  mkdirSync(join(folder.path, 'directory'))
  symlinkSync('nowhere', join(folder.path, 'broken'))
  for (const name of ['absent', 'directory', 'broken', 'directory/../absent/x']) {
    await expect(ChunkSource.open(join(folder.path, name)), name).rejects.toMatchObject({ code: 'usage' })
  }
})

test('a stream is called by its last name, or as it is told', async () => {
  await using folder = await temporaryFolder()
  writeFileSync(join(folder.path, 'größe.img'), 'x')
  symlinkSync('größe.img', join(folder.path, 'link'))
  for (const [open, name] of [
    [() => ChunkSource.open(join(folder.path, 'größe.img')), 'größe.img'],
    [() => ChunkSource.open(join(folder.path, 'link')), 'link'],
    [() => ChunkSource.open(join(folder.path, 'link'), { name: 'given' }), 'given'],
    [() => ChunkSource.open('-'), 'stdin'],
  ] as const) {
    const source = await open()
    try {
      const walk = await walkOf(source)
      expect(walk.entries.map(({ path }) => Buffer.from(path, 'latin1').toString())).toEqual([name])
    } finally {
      await source.close()
    }
  }
})

test('a file that vanished since it was named has failed; a call for two files is a mistake', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'image')
  writeFileSync(path, 'x')
  const source = await ChunkSource.open(path)
  try {
    const files = filesOf(await walkOf(source))
    await folder[Symbol.asyncDispose]()
    expect((await reading(source, files)).files[0]?.failure).toBe('source-vanished')
    await expect(reading(source, [...files, ...files])).rejects.toBeInstanceOf(TypeError)
  } finally {
    await source.close()
  }
})

test('standard input and character devices can be read only once', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'image')
  writeFileSync(path, 'x')
  for (const [input, rereadable] of [
    ['-', false],
    ['/dev/null', false],
    [path, true],
  ] as const) {
    const source = await ChunkSource.open(input)
    try {
      expect(source.capabilities).toEqual({ form: 'chunks', rereadable })
    } finally {
      await source.close()
    }
  }
})

test('a regular file keeps what its stat tells, before and after reading; a change is seen', async () => {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'image')
  writeFileSync(path, 'x')
  truncateSync(path, 3_000_000)
  linkSync(path, join(folder.path, 'other name'))
  chmodSync(path, 0o4755)
  const source = await ChunkSource.open(path)
  try {
    const look = () => ({ ...sourceStat(statSync(path, { bigint: true })), links: 1 })
    const walk = await walkOf(source)
    const files = filesOf(walk)
    expect(walk.entered[0]?.stat).toMatchObject({ mode: 0o755, inode: '', size: 0, sparse: false })
    expect(files[0]?.stat).toEqual(look())
    expect(files[0]?.stat).toMatchObject({ mode: 0o4755, sparse: true, size: 3_000_000 })
    expect((await reading(source, files)).files[0]?.done?.stat).toEqual(look())
    writeFileSync(path, 'new')
    expect((await reading(source, files)).files[0]?.done?.stat).toEqual(look())
  } finally {
    await source.close()
  }
})

test.each(['', '.', '..', 'a/b', '/', 'a\0b'])(
  'no stream can be called %j: usage, and nothing is looked at',
  async (name) => {
    for (const path of ['-', '/there/is/nothing']) {
      const opening = ChunkSource.open(path, { name })
      await expect(opening).rejects.toMatchObject({
        code: 'usage',
        message: expect.stringMatching(/^no stream can be called/),
      })
    }
  },
)
