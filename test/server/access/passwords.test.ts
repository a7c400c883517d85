import { execFileSync } from 'node:child_process'
import { randomBytes, scryptSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  hashPassword,
  isBcryptHash,
  isPassword,
  isPasswordHash,
  nobodysBcryptHash,
  nobodysHash,
} from '../../../server/access/passwords.ts'

const base64 = (bytes: Buffer): string => bytes.toString('base64').replaceAll('=', '')

function phc(password: string, ln: number, r: number, p: number, bytes = 32): string {
  const salt = randomBytes(16)
  const hash = scryptSync(password, salt, bytes, { N: 2 ** ln, r, p, maxmem: 2 ** 30 })
  return `$scrypt$ln=${ln},r=${r},p=${p}$${base64(salt)}$${base64(hash)}`
}

const [a, b] = [base64(randomBytes(16)), base64(randomBytes(32))]

test('a new hash has the parameters of today, a salt of its own, and nothing of the password', async () => {
  const [first, second] = await Promise.all([hashPassword('correct horse'), hashPassword('correct horse')])
  expect(first).toMatch(/^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  expect(second).not.toBe(first)
  expect(await isPassword('correct horse', first)).toBe(true)
  expect(await isPassword('correct hors', first)).toBe(false)
})

test('RFC 7914, section 12: the third vector', async () => {
  const hash = Buffer.from(
    '7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887',
    'hex',
  )
  const text = `$scrypt$ln=14,r=8,p=1$${base64(Buffer.from('SodiumChloride'))}$${base64(hash)}`
  expect(await isPassword('pleaseletmein', text)).toBe(true)
})

test.each([
  ['older parameters', phc('geheim', 10, 8, 1), 'geheim', true],
  ['greater ones', phc('geheim', 11, 4, 2, 64), 'geheim', true],
  ['an empty password', phc('', 4, 8, 1), '', true],
  ['the password of another', phc('geheim', 4, 8, 1), 'Geheim', false],
  ['a NUL in it', phc('a\0b', 4, 8, 1), 'a', false],
  ['an umlaut in one piece, stored in one', phc('\u00fcber', 4, 8, 1), '\u00fcber', true],
  ['an umlaut in two pieces, stored in one', phc('\u00fcber', 4, 8, 1), 'u\u0308ber', true],
])('%s', async (_, hash, password, isRight) => {
  expect(await isPassword(password, hash)).toBe(isRight)
})

test.each([
  [''],
  ['geheim'],
  [`$scrypt$ln=99,r=8,p=1$${a}$${b}`],
  [`$scrypt$ln=0,r=8,p=1$${a}$${b}`],
  [`$scrypt$ln=20,r=32,p=1$${a}$${b}`],
  [`$scrypt$ln=15,r=8$${a}$${b}`],
  [`$scrypt$ln=15,r=8,p=3$${a}$`],
  [`$argon2id$v=19$m=19456,t=2,p=1$${a}$${b}`],
  [`$2y$05$${'a'.repeat(53)}`],
])('%s is no hash that is taken', (text) => {
  expect(isPasswordHash(text)).toBe(false)
})

describe('bcrypt', () => {
  test.each([
    ['geheim', 5],
    ['geheim ü', 5],
    ['x'.repeat(72), 4],
  ])('%s, hashed by htpasswd', async (password, cost) => {
    const line = execFileSync('htpasswd', ['-nbB', '-C', String(cost), 'a', password], { encoding: 'utf8' })
    const hash = line.trim().slice(2)
    expect(isBcryptHash(hash)).toBe(true)
    expect(await isPassword(password, hash)).toBe(true)
    expect(await isPassword(password.slice(1), hash)).toBe(false)
  })

  test.each([
    ['$2y$05$'],
    [`$2a$05$${'a'.repeat(53)}`],
    [`$2y$18$${'a'.repeat(53)}`],
    [`$2y$03$${'a'.repeat(53)}`],
    [`$2y$05$${'a'.repeat(52)}`],
    ['$apr1$x$y'],
  ])('%s is none that is taken', (text) => {
    expect(isBcryptHash(text)).toBe(false)
  })
})

test("nobody's hashes are compared like others, and are of nothing", async () => {
  expect(isPasswordHash(nobodysHash())).toBe(true)
  const hash = nobodysBcryptHash(`$2y$06$${'a'.repeat(53)}`)
  expect(isBcryptHash(hash)).toBe(true)
  expect(hash.slice(0, 7)).toBe('$2y$06$')
  expect(await isPassword('', hash)).toBe(false)
  const startedAt = performance.now()
  for (let i = 0; i < 4; i++) await isPassword('x', nobodysBcryptHash(`$2y$10$${'a'.repeat(53)}`))
  // It does the work: bcrypt of cost 10 is tens of ms.
  expect(performance.now() - startedAt).toBeGreaterThan(40)
})
