import { isUtf8 } from 'node:buffer'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { storedName } from '../../../client/targets/webdav-names.ts'
import { nameFault } from '../../../protocol/objects.ts'

const cases: [name: string, stored: string][] = [
  ['letter.odt', 'letter.odt'],
  ['ünïcödé-名前', 'ünïcödé-名前'],
  ['100%', '100%'],
  ['50% off', '50% off'],
  ['100%25', '100%2525'],
  ['a%~b', 'a%25~b'],
  ['.htaccess', '%2Ehtaccess'],
  ['.HTpasswd', '%2EHTpasswd'],
  ['.hidden', '.hidden'],
  ['.DAV', '%2EDAV'],
  ['.dave', '.dave'],
  ['.davfs.tmp0a1', '%2Edavfs.tmp0a1'],
  ['a\nb\x7f', 'a%0Ab%7F'],
  ['back\\slash', 'back%5Cslash'],
]
for (const [name, stored] of cases) {
  test(`${JSON.stringify(name)} is stored as ${stored}`, () => {
    expect(storedName(Buffer.from(name)).toString()).toBe(stored)
  })
}

test('what is not UTF-8 is stored as ASCII', () => {
  expect(storedName(Buffer.from('sm\xf8r', 'latin1')).toString()).toBe('sm%F8r')
})

const names = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes))
  .filter((bytes) => nameFault(bytes) === undefined)

test('a stored name can be held by any server, and decodes to the name', () => {
  const few = fc.constantFrom('%', '2', '5', '~', '.', 'h', 't', 'a', '\\', '\xff', '\n', '\xc3\xa9')
  const awkward = fc
    .array(few, { minLength: 1, maxLength: 12 })
    .map((parts) => Buffer.from(parts.join(''), 'latin1'))
  fc.assert(
    fc.property(fc.oneof(names, awkward), (name) => {
      fc.pre(nameFault(name) === undefined)
      const stored = storedName(name)
      expect(isUtf8(stored)).toBe(true)
      expect(nameFault(stored)).toBeUndefined()
      expect(stored.length).toBeLessThanOrEqual(255)
      if (stored.includes('%~')) return
      const decoded = stored
        .toString('latin1')
        .replace(/%([0-9A-F]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
      expect(Buffer.from(decoded, 'latin1')).toEqual(name)
    }),
  )
})

test('long names that need escapes stay apart', () => {
  const [a, b] = ['a', 'b'].map((end) => storedName(Buffer.from('\xff'.repeat(254) + end, 'latin1')))
  expect(a).not.toEqual(b)
})
