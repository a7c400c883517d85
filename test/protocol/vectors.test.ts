import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { formatVectors, generated } from '../support/vectors/generate.ts'

const folder = new URL('../vectors/', import.meta.url)

test.each(Object.keys(generated))('%s is what the code produces', async (name) => {
  const file = readFileSync(new URL(name, folder), 'utf8')
  expect(formatVectors(await generated[name]?.())).toBe(file)
})

test('every file of vectors is generated or published, and explained', () => {
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
  expect(files.sort()).toEqual([...Object.keys(generated), 'blake3.json', 'sha256.json'].sort())
  const readme = readFileSync(new URL('README.md', folder), 'utf8')
  for (const name of files) expect(readme).toContain(`\`${name}\``)
})
