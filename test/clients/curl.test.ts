/** curl: uploads of every kind, and restores from snapshots without a program of ours. */
import {
  chmodSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { backUp } from '../support/backup.ts'
import { listing, makeOddTree, seededBytes, temporaryFolder } from '../support/tree.ts'
import { testWith } from './programs.ts'
import { type Ran, run } from './run-program.ts'
import { isOurs, onlyOurs, startTree } from './tree-server.ts'

const curl = (...args: string[]): Promise<Ran> => run('curl', ['-sS', '--noproxy', '*', ...args])

/** The status that curl got, and the body. */
async function ask(
  url: string,
  ...args: string[]
): Promise<{ status: number; body: Buffer; headers: string }> {
  const { stdout } = await curl('-i', ...args, url)
  // Interim answers come first.
  let rest = stdout
  for (;;) {
    const end = rest.indexOf('\r\n\r\n')
    const headers = rest.subarray(0, end).toString('latin1')
    const status = Number(headers.split(' ')[1])
    rest = rest.subarray(end + 4)
    if (status >= 200) return { status, body: rest, headers }
  }
}

testWith(['curl'], 'curl puts: with a length, chunked, with Expect, and gets it back', async () => {
  await using server = await startTree()
  await using folder = await temporaryFolder()
  const file = join(folder.path, 'file')
  const bytes = seededBytes('curl', 12_345_678)
  writeFileSync(file, bytes)
  const ways: [string, string[]][] = [
    ['length', ['-T', file, '-H', 'Expect:']],
    ['chunked', ['-T', '-', '-H', 'Expect:', '-H', 'Transfer-Encoding: chunked']],
    ['expect', ['-T', file, '-H', 'Expect: 100-continue', '--expect100-timeout', '60']],
    ['expect-chunked', ['-T', '-', '-H', 'Expect: 100-continue', '--expect100-timeout', '60']],
  ]
  for (const [name, args] of ways) {
    const input = args[1] === '-' ? bytes : ''
    const { stdout } = await run(
      'curl',
      ['-sS', '--noproxy', '*', '-w', '%{http_code}', ...args, `${server.url}${name}`],
      { input },
    )
    expect(stdout.toString(), name).toMatch(/201$/)
    expect((await ask(`${server.url}${name}`)).body.equals(bytes), name).toBe(true)
  }
  const ranged = await ask(`${server.url}length`, '-r', '1000000-1999999')
  expect(ranged.status).toBe(206)
  expect(ranged.body.equals(bytes.subarray(1_000_000, 2_000_000))).toBe(true)
  const etag = /^etag: (.*)$/im.exec(ranged.headers)?.[1]?.trim() ?? ''
  expect((await ask(`${server.url}length`, '-H', `If-None-Match: ${etag}`)).status).toBe(304)
  const put = ['-T', file, '-H', 'Expect:']
  expect((await ask(`${server.url}length`, ...put, '-H', 'If-None-Match: *')).status).toBe(412)
  // Apache's is weak for the first second.
  if (isOurs) expect((await ask(`${server.url}length`, ...put, '-H', `If-Match: ${etag}`)).status).toBe(204)
  expect((await ask(`${server.url}absent/file`, ...put)).status).toBe(409)
})

testWith(
  ['curl'],
  'curl: what is refused leaves the old content',
  async () => {
    await using server = await startTree()
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'file')
    writeFileSync(file, seededBytes('refused', 100_000))
    const url = `${server.url}file`
    expect((await ask(url, '-T', file, '-H', 'X-OC-Mtime: 1000000000')).status).toBe(201)
    const wrong = ['-T', '/etc/hostname', '-H', 'OC-Checksum: SHA1:0123456789012345678901234567890123456789']
    expect((await ask(url, ...wrong)).status).toBe(422)
    expect((await ask(url, '-T', '/etc/hostname', '-H', 'Content-Range: bytes 0-1/2')).status).toBe(400)
    const { body, headers } = await ask(url)
    expect(body.equals(seededBytes('refused', 100_000))).toBe(true)
    expect(headers).toMatch(/^last-modified: Sun, 09 Sep 2001 01:46:40 GMT$/im)
  },
  onlyOurs,
)

testWith(
  ['curl', 'tar'],
  'curl on a snapshot: range, refusal to write, and a tar that restores everything that a file system holds',
  async () => {
    await using server = await startTree()
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    for (const name of ['source', 'restored', 'part']) mkdirSync(at(name))
    makeOddTree(at('source'))
    await backUp(at('source'), { vaultUrl: server.vaultUrl, state: at('state'), source: 'odd' })
    const snapshot = `${server.vaultUrl}/snapshots/odd/latest/`

    const ranged = await ask(`${snapshot}sub/big`, '-r', '1000-1999')
    expect(ranged.status).toBe(206)
    expect(ranged.body.equals(seededBytes('big', 5_000_000).subarray(1000, 2000))).toBe(true)
    for (const method of ['PUT', 'DELETE', 'MKCOL', 'PROPPATCH', 'LOCK'])
      expect((await ask(`${snapshot}small`, '-X', method)).status, method).toBe(403)

    const pipe = 'set -o pipefail; curl -sSf --noproxy "*" "$1" | tar -x --numeric-owner -C "$2"'
    await run('bash', [
      '-c',
      `${pipe.replace('curl', 'curl -H "Accept: application/x-tar"')}`,
      '-',
      snapshot,
      at('restored'),
    ])
    expect(listing(at('restored'))).toEqual(listing(at('source')))
    await run('bash', ['-c', pipe, '-', `${snapshot}sub/?archive=tar`, at('part')])
    expect(statSync(join(at('part'), 'big')).size).toBe(5_000_000)
  },
  onlyOurs,
)

/** 200 folders of 100 files each, with what a home directory has of links, modes and times. */
function makeHome(root: string): void {
  for (let i = 0; i < 200; i++) {
    const folder = join(root, `folder ${i % 20}`, `number ${i}`)
    mkdirSync(folder, { recursive: true })
    for (let j = 0; j < 100; j++) {
      const path = join(folder, `file ${j}.txt`)
      writeFileSync(path, seededBytes(`${i} ${j}`, (i * j) % 3000))
      if (j % 10 === 0) chmodSync(path, 0o600 + (j % 64))
      utimesSync(path, 1_600_000_000 + j + i / 1000, 1_600_000_000 + j + i / 1000)
    }
    symlinkSync('file 1.txt', join(folder, 'link'))
    lutimesSync(join(folder, 'link'), 1_500_000_000, 1_500_000_000)
    linkSync(join(folder, 'file 2.txt'), join(folder, 'hard link'))
  }
}

testWith(
  ['curl', 'tar'],
  'curl | tar x restores 20,000 files with modes, links and times',
  async () => {
    await using server = await startTree()
    await using folder = await temporaryFolder()
    const at = (name: string): string => join(folder.path, name)
    for (const name of ['source', 'restored']) mkdirSync(at(name))
    makeHome(at('source'))
    await backUp(at('source'), { vaultUrl: server.vaultUrl, state: at('state'), source: 'home' })
    const url = `${server.vaultUrl}/snapshots/home/latest/?archive=tar`
    const pipe = 'set -o pipefail; curl -sSf --noproxy "*" "$1" | tar -x --numeric-owner -C "$2"'
    const started = performance.now()
    await run('bash', ['-c', pipe, '-', url, at('restored')])
    console.log(`curl | tar x of 20,000 files: ${((performance.now() - started) / 1000).toFixed(1)} s`)
    expect(listing(at('restored'))).toEqual(listing(at('source')))
  },
  onlyOurs,
)
