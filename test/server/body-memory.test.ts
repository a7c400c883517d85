import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { BodyMemory } from '../../server/http/body-memory.ts'

const MiB = 1024 * 1024

describe('the memory of bodies', () => {
  beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
  afterEach(() => vi.useRealTimers())

  const lent = (memory: BodyMemory, bytes: number): Promise<Buffer> =>
    memory.lend(bytes, async (it) => it.bytes)

  test.each([
    ['of one length', MiB + 65, MiB + 65, true],
    ['of nearly one length', MiB + 65, MiB - 1000, true],
    ['of other lengths', MiB, 3 * MiB, false],
    ['short ones', 1000, 1000, false],
    ['too long to be kept', 32 * MiB, 32 * MiB, false],
  ])('%s', async (_, first, second, isSame) => {
    const memory = new BodyMemory()
    const before = await lent(memory, first)
    expect(await memory.lend(second, async (it) => it.bytes.length)).toBe(second)
    const after = await lent(memory, second)
    expect(after.buffer === before.buffer && second > 64 * 1024).toBe(isSame)
  })

  test('two at a time are apart, and a failure gives back as well', async () => {
    const memory = new BodyMemory()
    const both = await memory.lend(MiB, (one) =>
      memory.lend(MiB, async (other) => [one.bytes.buffer, other.bytes.buffer]),
    )
    expect(both[0]).not.toBe(both[1])
    await expect(memory.lend(MiB, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(both).toContain((await lent(memory, MiB)).buffer)
  })

  test('what was moved to a thread and back is used again, what did not come back is not', async () => {
    const memory = new BodyMemory()
    const moved = await memory.lend(MiB, async (it) => {
      it.bytes = Buffer.from((it.bytes.buffer as ArrayBuffer).transfer(), 0, it.bytes.length)
      return it.bytes.buffer
    })
    const again = await lent(memory, MiB)
    expect(again.buffer).toBe(moved)
    const lost = await memory.lend(MiB, async (it) => (it.bytes.buffer as ArrayBuffer).transfer())
    const after = await lent(memory, MiB)
    expect(after.length).toBe(MiB)
    expect(after.buffer).not.toBe(lost)
  })

  test('no more is kept than three of 4 MiB, and not for long', async () => {
    const memory = new BodyMemory()
    const nested = (left: number): Promise<ArrayBufferLike[]> =>
      memory.lend(4 * MiB, async ({ bytes: { buffer } }) => [
        buffer,
        ...(left > 1 ? await nested(left - 1) : []),
      ])
    const all = await nested(10)
    expect(all.filter(({ byteLength }) => byteLength > 0)).toHaveLength(3)
    vi.advanceTimersByTime(10_000)
    expect(all.filter(({ byteLength }) => byteLength > 0)).toHaveLength(0)
  })
})
