/** What is bounded is divided fairly: fair-budget.ts, whatever clients do. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FairBudget, type Holding } from '../../server/http/fair-budget.ts'

const total = 64
const clients = ['a', 'b', 'c', 'd']

type Step =
  | { readonly kind: 'take'; readonly client: string; readonly units: number }
  | { readonly kind: 'release' | 'shrink' | 'leave'; readonly which: number }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('take' as const),
        client: fc.constantFrom(...clients),
        units: fc.integer({ min: 1, max: 80 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('release' as const, 'shrink' as const, 'leave' as const),
        which: fc.nat(1000),
      }),
    },
  ),
  { maxLength: 80 },
)

/** One request as a test sees it. */
interface Asked {
  readonly client: string
  readonly units: number
  readonly gone: AbortController
  /** Of the admitted ones. */
  holding?: Holding
  held: number
  /** Admissions of each other client since this one could have been admitted but for them. */
  readonly overtakenBy: Map<string, number>
  left: boolean
}

class World {
  readonly budget = new FairBudget(total, { maxWaiting: 1000 })
  readonly waiting: Asked[] = []
  readonly admitted: Asked[] = []

  async take(client: string, units: number): Promise<void> {
    const asked: Asked = {
      client,
      units: Math.min(units, total),
      gone: new AbortController(),
      held: 0,
      overtakenBy: new Map(),
      left: false,
    }
    this.waiting.push(asked)
    void this.budget.take(units, client, asked.gone.signal).then(
      (holding) => {
        this.waiting.splice(this.waiting.indexOf(asked), 1)
        asked.holding = holding
        asked.held = asked.units
        this.admitted.push(asked)
        this.#overtaken(asked)
      },
      () => {
        asked.left = true
      },
    )
    await settled()
  }

  heldBy(client: string): number {
    return this.admitted.filter((one) => one.client === client).reduce((sum, { held }) => sum + held, 0)
  }

  /** The first of its client, and within what it may hold beside others. */
  isReady(asked: Asked): boolean {
    const own = this.heldBy(asked.client)
    return (
      this.waiting.find(({ client }) => client === asked.client) === asked &&
      (own === 0 || own + asked.units <= total / 2)
    )
  }

  #overtaken(by: Asked): void {
    for (const asked of this.waiting) {
      if (asked.client === by.client || !this.isReady(asked)) continue
      asked.overtakenBy.set(by.client, (asked.overtakenBy.get(by.client) ?? 0) + 1)
    }
  }

  async apply(step: Step): Promise<void> {
    if (step.kind === 'take') return await this.take(step.client, step.units)
    const among = step.kind === 'leave' ? this.waiting : this.admitted
    const asked = among[step.which % Math.max(1, among.length)]
    if (asked === undefined) return
    if (step.kind === 'shrink') {
      asked.held = Math.ceil(asked.held / 2)
      asked.holding?.shrinkTo(asked.held)
    } else if (step.kind === 'release') {
      this.admitted.splice(this.admitted.indexOf(asked), 1)
      asked.holding?.release()
      asked.holding?.release()
    } else {
      this.waiting.splice(this.waiting.indexOf(asked), 1)
      asked.gone.abort()
    }
    await settled()
  }

  check(): void {
    const held = this.admitted.reduce((sum, one) => sum + one.held, 0)
    expect(this.budget.usage).toMatchObject({ held, waiting: this.waiting.length })
    expect(held).toBeLessThanOrEqual(total)
    for (const asked of this.waiting) {
      // Nobody waits while nothing is held, and nobody is overtaken twice by the same client.
      expect(held).toBeGreaterThan(0)
      for (const times of asked.overtakenBy.values()) expect(times).toBeLessThanOrEqual(1)
    }
    // Whoever is ready waits for the total alone: the first of them does not fit.
    const ready = this.waiting.filter((asked) => this.isReady(asked))
    if (ready.length > 0) expect(ready.some(({ units }) => held + units > total)).toBe(true)
  }
}

/** Promises that are resolved already have told so. */
async function settled(): Promise<void> {
  for (let i = 0; i < 4; i++) await Promise.resolve()
}

describe('whatever is asked for, in any order', () => {
  test('no more is held than there is, nobody is overtaken twice by the same, and releases admit', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (steps) => {
        const world = new World()
        for (const step of steps) {
          await world.apply(step)
          world.check()
        }
        // Nobody starves: when those who hold give back, one after the other, all have had their turn.
        for (let which = 0; world.admitted.length > 0; which++) {
          await world.apply({ kind: 'release', which })
          world.check()
        }
        expect(world.budget.usage).toMatchObject({ held: 0, waiting: 0 })
      }),
      { numRuns: 300 },
    )
  })
})

test('a client alone leaves an eighth; what it holds beyond its half it gets only while nobody waits', async () => {
  const world = new World()
  for (let i = 0; i < 8; i++) await world.take('greedy', 8)
  expect(world.heldBy('greedy')).toBe(56)
  await world.take('small', 8)
  expect(world.heldBy('small')).toBe(8)
  await world.take('small', 8)
  await world.apply({ kind: 'release', which: 0 })
  expect(world.heldBy('small')).toBe(16)
  for (let i = 0; i < 3; i++) await world.apply({ kind: 'release', which: 0 })
  // Alone again, or almost: one more than its half would let it have.
  expect(world.heldBy('greedy')).toBe(32)
})

test('who waits is served in turns, however many requests a greedy client has waiting', async () => {
  const world = new World()
  for (let i = 0; i < 200; i++) await world.take('greedy', 8)
  await world.take('full', 8)
  const order: string[] = []
  for (const client of ['small', 'other']) for (let i = 0; i < 3; i++) await world.take(client, 8)
  for (let i = 0; i < 20; i++) {
    const before = new Set(world.admitted)
    await world.apply({ kind: 'release', which: 0 })
    order.push(...world.admitted.filter((one) => !before.has(one)).map(({ client }) => client))
  }
  // Three turns each, of three clients.
  expect(order.slice(0, 9).filter((client) => client === 'small')).toHaveLength(3)
  expect(order.slice(0, 9).filter((client) => client === 'other')).toHaveLength(3)
})

test('a client of which too many wait is refused, and no other', async () => {
  const budget = new FairBudget(1, { maxWaiting: 2 })
  const all = await budget.take(1, 'holder')
  const waiting = [budget.take(1, 'greedy'), budget.take(1, 'greedy')]
  await expect(budget.take(1, 'greedy')).rejects.toMatchObject({ code: 'unavailable' })
  waiting.push(budget.take(1, 'small'))
  expect(budget.usage).toMatchObject({ waiting: 3, refused: 1 })
  all.release()
  for (const next of [0, 2, 1]) (await waiting[next])?.release()
  expect(budget.usage.held).toBe(0)
})

test('it is told for how long somebody waits for what others hold, not for what is their own', async () => {
  const budget = new FairBudget(total)
  const held = await Promise.all([budget.take(total / 2, 'a'), budget.take(total / 4, 'b')])
  const own = budget.take(1, 'a')
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(budget.pressedMs).toBe(0)
  const pressed = budget.take(total, 'c')
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(budget.pressedMs).toBeGreaterThanOrEqual(25)
  for (const holding of held) holding.release()
  for (const next of [own, pressed]) (await next).release()
  expect(budget.pressedMs).toBe(0)
})
