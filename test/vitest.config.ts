import { defineConfig } from 'vitest/config'

/** `npm test` runs everything but test/slow; `npm run test:slow` runs only that. */
export default defineConfig(({ mode }) => ({
  root: new URL('..', import.meta.url).pathname,
  test: {
    include: mode === 'slow' ? ['test/slow/**/*.test.ts'] : ['test/**/*.test.ts'],
    exclude: mode === 'slow' ? [] : ['test/slow/**'],
    testTimeout: mode === 'slow' ? 900_000 : 30_000,
    hookTimeout: 30_000,
  },
}))
