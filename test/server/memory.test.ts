import { createHash } from 'node:crypto'
import { afterEach, describe, expect, test } from 'vitest'
import { hashId } from '../../protocol/hash.ts'
import { limits } from '../../protocol/limits.ts'
import { compress } from '../../protocol/zstd.ts'
import { type CollectableStore, MemoryBudget } from '../../server/index.ts'
import { MemoryChunkStore } from '../../server/store/memory-chunk-store.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { chunk, MiB, noise, put, RawConnection } from './requests.ts'

let server: TestReceiver | undefined
afterEach(async () => {
  await server?.stop()
  server = undefined
})

describe('the budget', () => {
  const KiB = 1024
  test('is given in order of arrival, and never more than there is', async () => {
    const budget = new MemoryBudget(256 * KiB)
    const order: number[] = []
    const first = await budget.reserve(256 * KiB)
    const waiting = [1, 2, 3].map(async (number) => {
      const reservation = await budget.reserve(number === 1 ? 256 * KiB : 64 * KiB)
      order.push(number)
      reservation.release()
    })
    expect(budget.usage).toMatchObject({ heldBytes: 256 * KiB, waiting: 3 })
    first.release()
    first.release()
    await Promise.all(waiting)
    expect(order).toEqual([1, 2, 3])
    expect(budget.usage).toMatchObject({ heldBytes: 0, peakBytes: 256 * KiB, waiting: 0 })
  })

  test('what is given back early is there for others', async () => {
    const budget = new MemoryBudget(256 * KiB)
    const first = await budget.reserve(256 * KiB)
    const second = budget.of('another').reserve(128 * KiB)
    first.shrinkTo(128 * KiB)
    first.shrinkTo(256 * KiB)
    ;(await second).release()
    expect(budget.usage.heldBytes).toBe(128 * KiB)
    first.release()
    expect(budget.usage.heldBytes).toBe(0)
  })

  test('more than all of it counts as all; too many waiting is refused', async () => {
    const budget = new MemoryBudget(64 * KiB, { maxWaiting: 1 })
    const all = await budget.reserve(10 * MiB)
    const next = budget.reserve(1)
    await expect(budget.reserve(1)).rejects.toMatchObject({ code: 'unavailable' })
    all.release()
    ;(await next).release()
  })
})

test('many clients at once stay within the budget, and all are served', async () => {
  server = await startReceiver({ memoryBytes: 4 * MiB, limits: { ...limits, maxChunkBytes: MiB } })
  const { vaultUrl } = server
  const items = Array.from({ length: 24 }, (_, i) => chunk(noise(MiB, 200 + i)))
  const answers = await Promise.all(
    items.map(({ id, bytes }) =>
      fetch(`${vaultUrl}/chunks/${id}`, { method: 'PUT', body: new Uint8Array(bytes) }),
    ),
  )
  expect(answers.map(({ status }) => status)).toEqual(items.map(() => 201))
  const { heldBytes, peakBytes } = server.receiver.uploads.usage
  expect(heldBytes).toBe(0)
  expect(peakBytes).toBeGreaterThanOrEqual(2 * MiB)
  expect(peakBytes).toBeLessThanOrEqual(4 * MiB)
})

test('a client that waits for memory is not told to continue before there is some', async () => {
  server = await startReceiver({ memoryBytes: MiB, limits: { ...limits, maxChunkBytes: MiB } })
  const [slow, next] = [await RawConnection.open(server.url), await RawConnection.open(server.url)]
  const [a, b] = [chunk(noise(MiB, 301)), chunk(noise(MiB, 302))]
  const head = (id: string): string =>
    `PUT /home/chunks/${id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${MiB}\r\nExpect: 100-continue\r\n\r\n`
  slow.send(head(a.id))
  await slow.until('100 Continue')
  next.send(head(b.id))
  while (server.receiver.uploads.usage.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(next.received).toBe('')
  slow.send(a.bytes)
  await slow.until('"stored"')
  await next.until('100 Continue')
  next.socket.destroy()
  slow.socket.destroy()
})

test('a client that does not read its fetch is waited for: blocks are read as it takes them', async () => {
  let read = 0
  server = await startReceiver({
    openStore: async () => counting(await MemoryChunkStore.open(), () => read++),
    unobserved: true,
  })
  const items = Array.from({ length: 40 }, (_, i) => chunk(noise(MiB, 400 + i)))
  for (const item of items) await put(server, 'chunks', item)
  const raw = await RawConnection.open(server.url)
  raw.socket.pause()
  const body = JSON.stringify({ ids: items.map(({ id }) => id) })
  raw.send(
    `POST /home/chunks/fetch HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  await new Promise((resolve) => setTimeout(resolve, 300))
  // The kernels' socket buffers take some MiB.
  expect(read).toBeLessThan(20)
  expect(server.receiver.downloads.usage.heldBytes).toBeLessThanOrEqual(2 * MiB)
  raw.socket.destroy()
  while (server.receiver.downloads.usage.heldBytes > 0) await new Promise((resolve) => setTimeout(resolve, 5))
})

function counting(store: CollectableStore, count: () => void): CollectableStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (name === 'blocks') {
        return async function* (ids: never) {
          for await (const block of target.blocks(ids)) {
            count()
            yield block
          }
        }
      }
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

test('hashing a large chunk does not hold the event loop', async () => {
  server = await startReceiver()
  // A short body that stands for 16 MiB: what takes long is hashing alone.
  let best = Number.POSITIVE_INFINITY
  let bound = 0
  for (let round = 0; round < 15; round++) {
    const plain = Buffer.alloc(16 * MiB, round + 1)
    const id = hashId(plain, 'sha256')
    const bytes = await compress(plain)
    const started = performance.now()
    createHash('sha256').update(plain).digest()
    bound = Math.max(bound, performance.now() - started)
    const { stop } = watchGaps()
    const answer = await put(server, 'chunks', { id, bytes }, { 'Content-Encoding': 'zstd' })
    best = Math.min(best, stop())
    expect(answer.status).toBe(201)
    if (best < bound * 0.75) return
  }
  expect(best, `longest gap in ms; hashing at one go takes ${bound}`).toBeLessThan(bound * 0.75)
})

/** Measures the longest time between two turns of the event loop. */
function watchGaps(): { stop: () => number } {
  let longest = 0
  let last = performance.now()
  let on = true
  const turn = (): void => {
    const now = performance.now()
    longest = Math.max(longest, now - last)
    last = now
    if (on) setImmediate(turn)
  }
  setImmediate(turn)
  return {
    stop: () => {
      on = false
      return longest
    },
  }
}
