/** The command `serve` as a process: where it listens, what it refuses, how it stops, what survives. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chunk, noise, RawConnection, smallTree } from './requests.ts'

const entry = new URL('../../server/main.ts', import.meta.url).href
const script = `await (await import(${JSON.stringify(entry)})).main(process.argv.slice(1))`

interface Served {
  readonly child: ChildProcess
  readonly ended: Promise<number | string | null>
  out: string
  err: string
}

function run(
  args: string[],
  env: Record<string, string> = {},
  stderr: 'pipe' | number = 'pipe',
  stdout: 'pipe' | number = 'pipe',
): Served {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, '--', ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', stdout, stderr],
  })
  const ended = new Promise<number | string | null>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal))
  })
  const served: Served = { child, ended, out: '', err: '' }
  child.stdout?.on('data', (text: Buffer) => {
    served.out += text
  })
  child.stderr?.on('data', (text: Buffer) => {
    served.err += text
  })
  return served
}

let dir: string
let running: Served[] = []
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'chunkdav-serve-'))
})
afterEach(async () => {
  for (const { child, ended } of running) {
    child.kill('SIGKILL')
    await ended
  }
  running = []
  await rm(dir, { recursive: true, force: true })
})

function serve(...args: string[]): Promise<Served & { url: string }> {
  return serveWith('pipe', ...args)
}

async function serveWith(stderr: 'pipe' | number, ...args: string[]): Promise<Served & { url: string }> {
  const words = ['serve', '--data', join(dir, 'data'), '--listen', '127.0.0.1:0', ...args]
  const served = run(words, {}, stderr)
  running.push(served)
  let over = false
  void served.ended.then(() => {
    over = true
  })
  while (!served.out.includes('backup DIR') && !over) await new Promise((resolve) => setTimeout(resolve, 10))
  const url = /http:\/\/[^\s]+:\d+/.exec(served.out)?.[0]
  if (url === undefined) throw new Error(`it did not start: ${served.err}`)
  return Object.assign(served, { url })
}

const oneLine = /^chunkdav: [^\n]+\n$/

describe('start', () => {
  test('tells where it listens, where the data is, and what to do next', async () => {
    const { out, url } = await serve()
    expect(out).toContain(`listens on ${url}`)
    expect(out).toContain(join(dir, 'data'))
    expect(out).toContain(`chunkdav backup DIR ${url}/home`)
  })

  test('what is done of itself can be turned off', async () => {
    const { url } = await serve('--gc', 'off', '--scrub', 'off', '--expire-open', 'off')
    expect((await fetch(url)).status).toBe(200)
  })

  test('logs nothing before that, and no request that went well', async () => {
    const both = await open(join(dir, 'both'), 'w+')
    const words = ['serve', '--data', join(dir, 'data'), '--listen', '127.0.0.1:0', '--freeze', 'home @daily']
    const served = run(words, {}, both.fd, both.fd)
    running.push(served)
    const said = async (text: string): Promise<string[]> => {
      for (;;) {
        const all = await readFile(join(dir, 'both'), 'utf8')
        if (all.includes(text)) return all.trimEnd().split('\n')
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    }
    const lines = await said('freezes are scheduled')
    expect(lines.map((line) => line[0])).toEqual(['c', 'd', 'b', ' ', '{'])
    const [, url] = /listens on (\S+)/.exec(lines[0] as string) ?? []
    expect((await fetch(`${url}/-/health`)).status).toBe(200)
    served.child.kill('SIGTERM')
    expect((await said('"stopped"')).length).toBe(7)
    await both.close()
  })

  test.each([['0.0.0.0:0'], ['192.0.2.1:8420'], ['[::]:0'], ['example.org:80']])(
    'refuses %s, which others can reach',
    async (address) => {
      const { ended } = run(['serve', '--data', dir, '--listen', address])
      expect(await ended).toBe(2)
    },
  )

  test('says what to do about it', async () => {
    const served = run(['serve', '--data', dir, '--listen', '0.0.0.0:0'])
    expect(await served.ended).toBe(2)
    expect(served.err).toMatch(oneLine)
    expect(served.err).toContain('--no-auth')
  })

  test('listens there when told that everybody may come', async () => {
    const served = run(['serve', '--data', dir, '--listen', '0.0.0.0:0', '--no-auth'])
    running.push(served)
    while (!served.out.includes('backup DIR')) await new Promise((resolve) => setTimeout(resolve, 10))
    expect(served.out).toMatch(/backup DIR http:\/\/127\.0\.0\.1:\d+\/home/)
  })

  test.each([['nowhere'], ['127.0.0.1:99999'], ['127.0.0.1:x']])('%s is no address', async (address) => {
    const served = run(['serve', '--data', dir, '--listen', address])
    expect(await served.ended).toBe(2)
    expect(served.err).toMatch(oneLine)
    expect(served.err).toMatch(/; see chunkdav serve --help\n$/)
  })

  test('a port in use', async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', () => resolve()))
    const { port } = other.address() as { port: number }
    const served = run(['serve', '--data', dir, '--listen', `127.0.0.1:${port}`])
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(oneLine)
    expect(served.err).toContain('in use')
    other.close()
  })

  test('a second receiver on the same data', async () => {
    await serve()
    const second = run(['serve', '--data', join(dir, 'data'), '--listen', '127.0.0.1:0'])
    expect(await second.ended).toBe(1)
    expect(second.err).toMatch(oneLine)
    expect(second.err).toContain(`a receiver is at work on ${join(dir, 'data')}; stop it first`)
    const reindex = run(['reindex', '--data', join(dir, 'data')])
    expect(await reindex.ended).toBe(1)
    expect(reindex.err).toBe(second.err)
  })

  test('a data directory that is a file', async () => {
    await writeFile(join(dir, 'file'), '')
    const served = run(['serve', '--data', join(dir, 'file'), '--listen', '127.0.0.1:0'])
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(oneLine)
  })

  test.skipIf(process.platform !== 'linux')('a data directory where none can be made', async () => {
    const served = run(['serve', '--data', '/proc/chunkdav/data', '--listen', '127.0.0.1:0'])
    running.push(served)
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(oneLine)
  })

  test.skipIf(process.getuid?.() !== 0)('no data directory, of a user who has no home folder', async () => {
    const { HOME: _, XDG_DATA_HOME: __, ...env } = process.env
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, '--', 'serve'], {
      env,
      uid: 54_321,
      gid: 54_321,
      cwd: '/',
    })
    let said = ''
    child.stderr.on('data', (text: Buffer) => {
      said += text
    })
    const [code] = await once(child, 'close')
    expect({ code, said }).toEqual({ code: 2, said: expect.stringMatching(oneLine) })
  })

  test.skipIf(process.getuid?.() === 0)('a data directory that cannot be written', async () => {
    await chmod(dir, 0o500)
    const served = run(['serve', '--data', join(dir, 'data'), '--listen', '127.0.0.1:0'])
    expect(await served.ended).toBe(1)
    expect(served.err).toMatch(oneLine)
  })
})

test.skipIf(process.platform !== 'linux')('a log that cannot be written does not end it', async () => {
  const full = await open('/dev/full', 'w')
  const { url } = await serveWith(full.fd)
  await fetch(`${url}/-/health`)
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect((await fetch(`${url}/-/health`)).status).toBe(200)
  await full.close()
})

test('a disk that fails is in the log, whoever hears of it', async () => {
  const served = await serve()
  await fetch(`${served.url}/home/`, { method: 'MKCOL' })
  await writeFile(join(dir, 'data/vaults/home/packs'), '')
  expect((await fetch(`${served.url}/home/`)).status).toBe(503)
  expect(served.err).toMatch(/"level":50[^\n]*packs/)
})

describe('stop', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)(
    'on %s an open request finishes, idle connections do not hold it up',
    async (signal) => {
      const { child, ended, url, ...served } = await serve()
      await fetch(`${url}/home/`, { method: 'MKCOL' })
      const item = chunk(noise(100_000, 71))
      const idle = await RawConnection.open(url)
      idle.send('GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n')
      await idle.until('"ok"')
      const raw = await RawConnection.open(url)
      raw.send(
        `PUT /home/chunks/${item.id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${item.bytes.length}\r\n\r\n`,
      )
      raw.send(item.bytes.subarray(0, 50_000))
      await new Promise((resolve) => setTimeout(resolve, 100))
      child.kill(signal)
      await idle.end()
      raw.send(item.bytes.subarray(50_000))
      const answer = await raw.end()
      expect(answer).toContain('HTTP/1.1 201')
      expect(answer.toLowerCase()).toContain('connection: close')
      expect(await ended).toBe(0)
      expect(served.err).not.toContain('    at ')
      const again = await serve()
      expect((await fetch(`${again.url}/home/chunks/${item.id}`)).status).toBe(200)
    },
  )

  test('a second signal ends it at once', async () => {
    const { child, ended, url } = await serve()
    const raw = await RawConnection.open(url)
    await fetch(`${url}/home/`, { method: 'MKCOL' })
    raw.send(`PUT /home/chunks/${chunk('x').id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n`)
    await new Promise((resolve) => setTimeout(resolve, 50))
    child.kill('SIGTERM')
    await new Promise((resolve) => setTimeout(resolve, 100))
    child.kill('SIGTERM')
    expect(await ended).toBe(1)
    raw.socket.destroy()
  })
})

test('after kill -9 open checkpoints, their items, numbers and chunks are there; commits stay', async () => {
  const first = await serve()
  const tree = smallTree()
  const send = async (
    url: string,
    method: string,
    path: string,
    body?: string | Buffer,
  ): Promise<unknown> => {
    const init = body === undefined ? {} : { body: typeof body === 'string' ? body : new Uint8Array(body) }
    const answer = await fetch(`${url}/home/${path}`, { method, ...init })
    return { status: answer.status, ...((await answer.json().catch(() => ({}))) as object) }
  }
  await send(first.url, 'MKCOL', '')
  for (const { id, bytes } of tree.chunks) await send(first.url, 'PUT', `chunks/${id}`, bytes)
  for (const { id, bytes } of tree.objects) await send(first.url, 'PUT', `chunks/${id}`, bytes)
  const root = JSON.stringify({ root: tree.root.id })
  await send(first.url, 'POST', 'checkpoints/s/', '{"kind":"dir"}')
  const committed = await send(first.url, 'POST', 'checkpoints/s/1/commit', root)
  expect(committed).toMatchObject({ status: 200, state: 'committed' })
  await send(first.url, 'POST', 'checkpoints/s/', '{"kind":"chunks","about":{"host":"h"}}')
  const items = [{ id: tree.a.id, size: tree.a.bytes.length }]
  await send(first.url, 'POST', 'checkpoints/s/2/items', JSON.stringify({ first: 0, items }))
  await send(first.url, 'POST', 'checkpoints/s/', '{"kind":"dir"}')
  await send(first.url, 'DELETE', 'checkpoints/s/3')
  first.child.kill('SIGKILL')
  await first.ended

  const second = await serve()
  expect(await send(second.url, 'GET', 'checkpoints/s/1')).toEqual(committed)
  expect(await send(second.url, 'POST', 'checkpoints/s/1/commit', root)).toEqual(committed)
  expect(await send(second.url, 'GET', 'checkpoints/s/2')).toMatchObject({
    state: 'open',
    items: 1,
    about: { host: 'h' },
  })
  expect(await send(second.url, 'POST', 'checkpoints/s/', '{"kind":"dir"}')).toMatchObject({ number: 4 })
  expect(await send(second.url, 'POST', 'checkpoints/s/4/commit', root)).toMatchObject({ status: 200 })
  expect(await send(second.url, 'POST', 'checkpoints/s/2/commit', '{"items":1}')).toMatchObject({
    status: 200,
  })
  expect(await send(second.url, 'GET', 'checkpoints/s/2/items')).toMatchObject({ items, total: 1 })
})

test('reindex rebuilds the index of a stopped receiver', async () => {
  const first = await serve()
  const item = chunk(noise(50_000, 72))
  await fetch(`${first.url}/home/`, { method: 'MKCOL' })
  await fetch(`${first.url}/home/chunks/${item.id}`, { method: 'PUT', body: new Uint8Array(item.bytes) })
  first.child.kill('SIGTERM')
  await first.ended
  await rm(join(dir, 'data/vaults/home/index'), { recursive: true })
  const reindex = run(['reindex', '--data', join(dir, 'data')])
  expect(await reindex.ended).toBe(0)
  expect(reindex.out).toBe('home: 1 chunk in 1 block of 1 pack\n')
  const second = await serve()
  expect((await fetch(`${second.url}/home/chunks/${item.id}`)).status).toBe(200)
})

test('reindex tells what it left out, and what to do then', async () => {
  const first = await serve()
  await fetch(`${first.url}/home/`, { method: 'MKCOL' })
  for (const seed of [73, 74]) {
    const item = chunk(noise(50_000, seed))
    await fetch(`${first.url}/home/chunks/${item.id}`, { method: 'PUT', body: new Uint8Array(item.bytes) })
  }
  first.child.kill('SIGTERM')
  await first.ended
  const pack = join(dir, 'data/vaults/home/packs/00000001.pack')
  const bytes = await readFile(pack)
  bytes.writeUInt8(bytes.readUInt8(30_000) ^ 1, 30_000)
  await writeFile(pack, bytes)
  const reindex = run(['reindex', '--data', join(dir, 'data')])
  expect(await reindex.ended).toBe(1)
  expect(reindex.out).toMatch(
    /^home: 1 chunk in .*\nhome: left out: 00000001\.pack, \d+ bytes from byte \d+ on: .+\nhome: .*chunkdav check .*\n$/,
  )
})

test('reindex --help has an example and the exit codes', async () => {
  const served = run(['reindex', '--help'])
  expect([await served.ended, served.out]).toEqual([
    0,
    expect.stringMatching(/reindex --data .*Exit codes: 0/s),
  ])
})

test('reindex where there is nothing says so', async () => {
  const served = run(['reindex', '--data', join(dir, 'none')])
  expect(await served.ended).toBe(1)
  expect(served.err).toMatch(oneLine)
})
