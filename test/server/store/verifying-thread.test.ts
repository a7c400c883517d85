import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, expect, onTestFinished, test } from 'vitest'
import { assembleBlock } from '../../../protocol/block.ts'
import { compressNow } from '../../../protocol/zstd.ts'
import { type Judged, judgeInPlace, VerifyingThreads } from '../../../server/store/verifying-thread.ts'
import { blockOf, chunk, MiB, noise } from '../requests.ts'

let threads = new VerifyingThreads({ threads: 1 })
afterEach(async () => {
  await threads.close()
  threads = new VerifyingThreads({ threads: 1 })
})

/** Large enough for a thread. */
const plainBytes = MiB

async function batch(): Promise<{
  body: Buffer
  objectId: string
  objectBytes: Uint8Array
  falseId: string
}> {
  const object = chunk('{"type":"file"}')
  const lie = { ...chunk('false'), bytes: Buffer.from('other') }
  const blocks = [
    await blockOf([chunk(noise(3000)), object]),
    await blockOf([chunk('true'), lie, chunk('{}')]),
    await blockOf([chunk(noise(200_000, 2))], 'identity'),
  ]
  const objectBytes = new Uint8Array(object.bytes)
  return { body: Buffer.concat(blocks), objectId: object.id, objectBytes, falseId: lie.id }
}

/** Memory of its own, as a request's body has. */
function alone(bytes: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(own)
  return own
}

test.each([
  ['in memory of their own, which is moved', alone],
  ['amid others', (bytes: Buffer) => Buffer.concat([noise(10), bytes, noise(10)]).subarray(10, -10)],
])('a thread says what is said in place; bytes %s', async (_, laidDown) => {
  const { body, objectId, objectBytes, falseId } = await batch()
  const { verdict } = judgeInPlace(body)
  expect(verdict).toMatchObject({
    refused: [1],
    problems: [{ id: falseId }],
    objects: [{ id: objectId, bytes: objectBytes }],
  })
  const judged = await threads.judge(laidDown(body), plainBytes)
  expect(judged.verdict).toEqual(verdict)
  expect(judged.body.equals(body)).toBe(true)
})

test('a wrong checksum is told of as in place, and the thread goes on', async () => {
  const { body } = await batch()
  body[body.length - 1] = (body.at(-1) as number) ^ 1
  const fault = { code: 'invalid-batch', extensions: { offset: expect.any(Number) } }
  expect(() => judgeInPlace(body)).toThrow(expect.objectContaining(fault))
  await expect(threads.judge(alone(body), plainBytes)).rejects.toMatchObject(fault)
  const { body: whole } = await batch()
  await expect(threads.judge(alone(whole), plainBytes)).resolves.toBeDefined()
})

test('batches take turns: a small one does not wait for all of a large one', async () => {
  const large = Buffer.concat(
    await Promise.all(Array.from({ length: 40 }, (_, i) => blockOf([chunk(noise(MiB, i))]))),
  )
  const ended: string[] = []
  const judge = async (name: string, body: Buffer): Promise<Judged> => {
    const judged = await threads.judge(alone(body), plainBytes)
    ended.push(name)
    return judged
  }
  const { body } = await batch()
  await Promise.all([judge('large', large), judge('small', body)])
  expect(ended).toEqual(['small', 'large'])
})

test('what is under way when the threads are closed is unavailable, and so is what comes later', async () => {
  const { body } = await batch()
  const underWay = expect(threads.judge(alone(body), plainBytes)).rejects.toMatchObject({
    code: 'unavailable',
  })
  await threads.close()
  await underWay
  expect(() => threads.judge(alone(body), plainBytes)).toThrow(
    expect.objectContaining({ code: 'unavailable' }),
  )
})

test.each([
  ['of many bytes', 16, 4096],
  ['of many chunks', 20, 0],
])(
  'a batch %s goes to a thread, however little it says that it decodes to',
  async (_, blocks, chunkBytes) => {
    const chunks = Array.from({ length: 200 }, () => chunk(noise(chunkBytes)))
    const body = Buffer.concat(Array.from({ length: blocks }, () => assemble(chunks)))
    const judged = threads.judge(alone(body), 0)
    expect(judged).toBeInstanceOf(Promise)
    await judged
  },
)

test.each(['right', 'false'])('what a block decodes to is given back at once: %s', (is) => {
  const plain = Buffer.alloc(16 * MiB)
  const { id } = chunk(is === 'right' ? plain : 'other')
  const block = assembleBlock([{ id, length: plain.length }], 'zstd', compressNow(plain)).bytes
  const before = process.memoryUsage().arrayBuffers
  judgeInPlace(Buffer.concat(Array.from({ length: 10 }, () => block)))
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * MiB)
})

test('blocks that do not decode to what they say do not pile up', async () => {
  // In a process of its own, whose collector is in no hurry, as in the receiver's.
  const module = (path: string): string => new URL(`../../../${path}`, import.meta.url).href
  const program = `
    import { assembleBlock } from '${module('protocol/block.ts')}'
    import { VerifyingThreads } from '${module('server/store/verifying-thread.ts')}'
    import { constants, zstdCompressSync } from 'node:zlib'
    const plain = Buffer.alloc(${16 * MiB})
    const frame = zstdCompressSync(plain, { params: { [constants.ZSTD_c_checksumFlag]: 1 } })
    frame[frame.length - 1] ^= 1
    const block = assembleBlock([{ id: '${chunk('').id}', length: plain.length }], 'zstd', frame).bytes
    const threads = new VerifyingThreads({ threads: 1 })
    const { verdict } = await threads.judge(Buffer.concat(Array.from({ length: 80 }, () => block)), plain.length)
    await threads.close()
    console.log(verdict.refused.length, process.resourceUsage().maxRSS)`
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-verifying-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  const file = join(folder, 'program.mjs')
  await writeFile(file, program)
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--external-memory-accounted-in-global-limit',
    file,
  ])
  const [refused, maxRssKiB] = stdout.split(' ').map(Number)
  expect(refused).toBe(80)
  expect(maxRssKiB).toBeLessThan(400 * 1024)
})

test('no more objects come with a verdict than can be kept', async () => {
  const chunks = Array.from({ length: 4000 }, (_, i) => chunk(`{"type":"file"${i}`.padEnd(2000)))
  const { verdict } = await threads.judge(alone(assemble(chunks)), plainBytes)
  expect(verdict.objects).toHaveLength(4000)
  expect(verdict.objects.filter(({ bytes }) => bytes !== undefined).length).toBeLessThan(2000)
})

test('of JSON that is no object by its beginning, the bytes do not come', async () => {
  const { verdict } = judgeInPlace(
    assemble(['{}', '{"type":"link"}', ' {"type":"file"}'].map((text) => chunk(text))),
  )
  expect(verdict.objects).toHaveLength(3)
  expect(verdict.objects.filter(({ bytes }) => bytes !== undefined)).toEqual([])
})

function assemble(chunks: ReturnType<typeof chunk>[]): Buffer {
  const table = chunks.map(({ id, bytes }) => ({ id, length: bytes.length }))
  return assembleBlock(table, 'identity', Buffer.concat(chunks.map(({ bytes }) => bytes))).bytes
}
