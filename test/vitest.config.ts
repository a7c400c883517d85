import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

interface Mode {
  readonly include: string[]
  readonly exclude: string[]
  readonly testTimeout: number
}

const modes: Record<string, Mode> = {
  slow: { include: ['test/slow/**/*.test.ts'], exclude: [], testTimeout: 900_000 },
  clients: {
    include: ['test/clients/**/*.test.ts', 'test/server/litmus.test.ts'],
    exclude: [],
    testTimeout: 900_000,
  },
}

const others: Mode = {
  include: ['test/**/*.test.ts'],
  exclude: ['test/slow/**', 'test/clients/**'],
  testTimeout: 30_000,
}

/** `npm test` runs everything but test/slow and test/clients, which have commands of their own: `npm run test:slow`, `npm run test:clients`. */
export default defineConfig(({ mode }) => {
  const { include, exclude, testTimeout } = modes[mode] ?? others
  // Vitest leaves a core to itself; but many tests wait more than they work. Those of the modes have the machine to themselves.
  const maxWorkers = modes[mode] === undefined ? Math.max(2, availableParallelism() - 1) : 1
  return {
    root: new URL('..', import.meta.url).pathname,
    test: { include, exclude, testTimeout, hookTimeout: 30_000, maxWorkers },
  }
})
