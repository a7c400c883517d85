/** docs/protocol.md states numbers and codes that the code states too: they must not drift apart. */
import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { cutParameters } from '../../protocol/cut.ts'
import { limits } from '../../protocol/limits.ts'
import { problemCodes, statusOf } from '../../protocol/problem.ts'

const place = new URL('../../docs/protocol.md', import.meta.url)
const text = readFileSync(place, 'utf8')

function section(title: string): string {
  const [, body = ''] = text.split(`\n## ${title}\n`)
  return body.split('\n## ')[0] ?? ''
}

test('the table of problems', () => {
  const rows = [...section('Problems').matchAll(/^\| `([a-z-]+)` \| (\d+) \|/gm)].map(([, code, status]) => [
    code,
    Number(status),
  ])
  const travelling = problemCodes.filter((code) => statusOf(code) !== undefined)
  expect(rows).toEqual(travelling.map((code) => [code, statusOf(code)]))
})

test('the table of limits', () => {
  const rows = [...section('Limits').matchAll(/^\| `(\w+)` \| ([\d,]+) \|/gm)].map(([, name, value = '']) => [
    name,
    Number(value.replaceAll(',', '')),
  ])
  expect(Object.fromEntries(rows)).toEqual(limits)
})

test('the numbers of cutting', () => {
  const cutting = section('Cutting files')
  const { minChunkBytes, averageChunkBytes, maxChunkBytes, strictBits, looseBits } = cutParameters
  for (const bytes of [minChunkBytes, averageChunkBytes, maxChunkBytes])
    expect(cutting).toContain(bytes.toLocaleString('en-US'))
  for (const bits of [strictBits, looseBits])
    expect(cutting).toContain(`the ${bits} highest bits of h are zero, that is h < 2^${32 - bits}`)
})

test('links lead somewhere', () => {
  const anchors = new Set(
    [...text.matchAll(/^## (.+)$/gm)].map(
      ([, title = '']) =>
        `#${title
          .toLowerCase()
          .replace(/[^a-z0-9 -]/g, '')
          .replaceAll(' ', '-')}`,
    ),
  )
  const links = [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, link = '']) => link)
  const broken = links.filter((link) =>
    link.startsWith('#') ? !anchors.has(link) : !existsSync(new URL(link, place)),
  )
  expect(broken).toEqual([])
})
