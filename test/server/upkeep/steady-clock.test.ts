/** Nothing is pruned by a clock that has just been set forward. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { encodeDirectoryObject } from '../../../protocol/objects.ts'
import { SteadyClock } from '../../../server/upkeep/steady-clock.ts'
import { startReceiver } from '../../support/receiver.ts'
import { begin, post, put } from '../requests.ts'

const hour = 3_600_000
const day = 24 * hour

afterEach(() => {
  vi.restoreAllMocks()
})

test('a clock that was set forward is doubted for a day; one that runs, is corrected or is set back is not', () => {
  let [wall, running] = [Date.UTC(2026, 0, 1), 0]
  vi.spyOn(Date, 'now').mockImplementation(() => wall)
  vi.spyOn(performance, 'now').mockImplementation(() => running)
  const clock = new SteadyClock()
  const after = (ms: number, set = 0): boolean => {
    running += ms
    wall += ms + set
    return clock.isDoubtful()
  }
  expect([after(hour), after(400 * day), after(hour, 23 * hour), after(hour, -3000 * day)]).toEqual([
    false,
    false,
    false,
    false,
  ])
  expect([after(hour, 2 * day), after(23 * hour), after(hour)]).toEqual([true, true, false])
  expect([after(hour, 3000 * day), after(hour, -3000 * day), after(day)]).toEqual([true, true, false])
})

test('the schedule does not prune by it; somebody who asks for it can', async () => {
  const real = Date.now.bind(Date)
  await using server = await startReceiver()
  const root = encodeDirectoryObject([])
  await put(server, 'dirs', root)
  for (let i = 0; i < 3; i++)
    await post(server, `${await begin(server, 's', 'dir')}/commit`, { root: root.id })
  const settings = JSON.stringify({ retention: { keepLast: 2 } })
  await fetch(`${server.vaultUrl}/settings`, { method: 'PUT', body: settings })
  const spy = vi.spyOn(Date, 'now').mockImplementation(() => real() + 1000 * day)
  await server.receiver.schedule.prune()
  spy.mockRestore()
  const answer = await post(server, 'upkeep/prune', {})
  expect(await answer.json()).toMatchObject({ kept: 2, removed: 1 })
})

test('the schedule prunes by one that runs', async () => {
  await using server = await startReceiver()
  const root = encodeDirectoryObject([])
  await put(server, 'dirs', root)
  for (let i = 0; i < 3; i++)
    await post(server, `${await begin(server, 's', 'dir')}/commit`, { root: root.id })
  const settings = JSON.stringify({ retention: { keepLast: 2 } })
  await fetch(`${server.vaultUrl}/settings`, { method: 'PUT', body: settings })
  await server.receiver.schedule.prune()
  const listed = await (await fetch(`${server.vaultUrl}/checkpoints/s/`)).json()
  expect(listed).toMatchObject({ checkpoints: [{ number: 2 }, { number: 3 }] })
  await new Promise((resolve) => setTimeout(resolve, 50))
  const audit = await readFile(join(server.dataDir, 'audit.jsonl'), 'utf8')
  expect(
    audit
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toContainEqual(
    expect.objectContaining({ event: 'pruned', vault: 'home', removed: 1, checkpoints: { s: [1] } }),
  )
})
