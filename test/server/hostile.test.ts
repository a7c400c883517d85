/** Requests that no client of ours sends: none may end the receiver, or hold what others need. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { RawConnection } from './requests.ts'

let server: TestReceiver
beforeEach(async () => {
  server = await startReceiver({ unobserved: true })
})
afterEach(() => server.stop())

async function answerTo(text: string): Promise<string> {
  const raw = await RawConnection.open(server.url)
  raw.send(text)
  return await raw.end()
}

describe('a request target that is no path', () => {
  test.each([['http://%%@host/'], ['http://%zz@host/home/'], ['http://[::1/'], ['http://a:99999/x'], ['*']])(
    '%s',
    async (target) => {
      const answer = await answerTo(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
      expect(answer).toMatch(/^HTTP\/1\.1 40[04] [\s\S]*urn:chunkdav:problem:/)
      expect((await fetch(`${server.url}/-/health`)).status).toBe(200)
    },
  )
})

test.each([['bad host'], ['['], ['a:b:c'], ['%'], ['']])('Host "%s" is no fault of ours', async (host) => {
  const answer = await answerTo(
    `GET /home/checkpoints/s/1?root=x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
  )
  expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
})
