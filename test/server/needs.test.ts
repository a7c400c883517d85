/** The table of needs, held against openapi.yaml both ways. */
import { expect, test } from 'vitest'
import { needOf, needsOf, needsOfRoutes } from '../../server/access/needs.ts'
import { contract, type Json, listOperations } from '../support/openapi.ts'

const rows = Object.keys(needsOfRoutes)

/** The row that an operation's path belongs to: its own, or that of the resource that it is below. */
function rowOf(template: string): string {
  const path = template.replace(/\{(\w+)\}/g, ':$1').replace(/\/(?::path)?$/, '') || '/'
  const own = rows.find((row) => row === path)
  if (own !== undefined) return own
  const above = rows.filter((row) => path.startsWith(`${row}/`)).sort((a, b) => b.length - a.length)
  return above[0] ?? ''
}

const operations = listOperations().map(({ template, method }) => {
  const item = (contract.paths as Json)[template] as Json
  const operation = (item[method.toLowerCase()] ?? (item.additionalOperations as Json)[method]) as Json
  return { template, method, row: rowOf(template), says: operation['x-needs'] }
})

test.each(operations)('$method $template needs what openapi.yaml says', ({ template, method, row, says }) => {
  const own = needsOfRoutes[row]
  expect(own, template).toBeDefined()
  expect(needOf(row, own ?? {}, method)).toEqual(says)
})

test.each(rows.flatMap((row) => Object.keys(needsOfRoutes[row] ?? {}).map((method) => ({ row, method }))))(
  '$method $row is in openapi.yaml',
  ({ row, method }) => {
    expect(operations.some((each) => each.row === row && each.method === method)).toBe(true)
  },
)

test.each<[string, string[]]>([
  ['/:vault/nothing', ['GET']],
  ['/:vault/chunks/:id', ['GET', 'DELETE']],
  ['/:vault/chunks/:id', ['constructor']],
])('a resource that the table does not know is refused: %s %j', (pattern, methods) => {
  expect(() => needsOf(pattern, methods)).toThrow(TypeError)
})

test.each([
  ['/:vault', 'HEAD', 'see'],
  ['/:vault/', 'OPTIONS', 'see'],
  ['/:vault/tree/{*path}', 'GET', 'restore'],
  ['/:vault/tree/{*path}', 'BREW', 'see'],
  ['/', 'OPTIONS', 'known'],
  ['/-/health', 'HEAD', 'anyone'],
  ['/-/health', 'DELETE', 'known'],
])('%s %s needs %s', (pattern, method, need) => {
  expect(needOf(pattern, needsOf(pattern, []), method)).toBe(need)
})
