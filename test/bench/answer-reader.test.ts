import { describe, expect, it } from 'vitest'
import { AnswerReader } from '../../bench/requests/answer-reader.ts'

const cases: readonly (readonly [string, string, readonly (readonly [number, number])[]])[] = [
  ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', [[200, 5]]],
  ['no body', 'HTTP/1.1 204 No Content\r\n\r\n', [[204, 0]]],
  ['a length of nothing', 'HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n', [[201, 0]]],
  [
    'chunks',
    'HTTP/1.1 207 M\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n',
    [[207, 15]],
  ],
  ['text of an end in a body', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\r\n\r\n', [[200, 4]]],
  [
    'one behind the other',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 N\r\n\r\n',
    [
      [200, 1],
      [404, 0],
      [204, 0],
    ],
  ],
]

describe('AnswerReader', () => {
  for (const [name, text, expected] of cases) {
    for (const step of [1, 2, 7, text.length]) {
      it(`reads ${name}, ${step} bytes at once`, () => {
        const got: [number, number][] = []
        const reader = new AnswerReader((...answer) => got.push(answer))
        for (let i = 0; i < text.length; i += step)
          reader.read(Buffer.from(text.slice(i, i + step), 'latin1'))
        expect(got).toEqual(expected)
      })
    }
  }

  it.each([
    'FTP\r\n\r\n',
    'HTTP/1.1 200 OK\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n',
  ])('refuses %j', (text) => {
    expect(() => new AnswerReader(() => {}).read(Buffer.from(text))).toThrow()
  })
})
