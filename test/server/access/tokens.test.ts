import { expect, test } from 'vitest'
import { makeToken, tokenHash, tokenId } from '../../../server/access/tokens.ts'

test('a token is new each time, names its id, and only its hash is to be kept', () => {
  const [first, second] = [makeToken(), makeToken()]
  expect(first.token).toMatch(/^cdt_[0-9a-f]{12}_[0-9a-f]{72}$/)
  expect(tokenId(first.token)).toBe(first.id)
  expect(first.hash).toBe(tokenHash(first.token))
  expect(first.hash).not.toContain(first.token.slice(17, 40))
  expect(second.token.slice(17)).not.toBe(first.token.slice(17))
})

const { token } = makeToken()
const other = token.endsWith('0') ? '1' : '0'
test.each([
  ['nothing', ''],
  ['a password', 'correct horse'],
  ['a part of one', token.slice(0, -1)],
  ['more than one', `${token}0`],
  ['a wrong check', token.slice(0, -1) + other],
  ['a digit changed', `${token.slice(0, 30)}${token[30] === 'a' ? 'b' : 'a'}${token.slice(31)}`],
  ['capitals', token.toUpperCase()],
  ['a line end', `${token}\n`],
])('%s is no token', (_, text) => {
  expect(tokenId(text)).toBeUndefined()
})
