/** Real directory trees for tests: making them, and listing them so that two can be compared. */
import { createCipheriv, createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeDevice, makeFifo, setModificationTime } from '../../client/posix.ts'

export interface TemporaryFolder extends AsyncDisposable {
  readonly path: string
}

export async function temporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), 'chunkdav-test-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** Bytes that look random and are the same in every run. */
export function seededBytes(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

/**
 * One line per path: kind, mode, owner, mtime in ns, links, size, target, device, and the content's hash.
 * Links to one inode share a letter in the order of their names.
 */
export function listing(root: string): string[] {
  const lines: string[] = []
  const inodes = new Map<string, string>()
  const visit = (path: Buffer, shown: string): void => {
    const stat = lstatSync(path, { bigint: true })
    const kind = stat.isDirectory()
      ? 'd'
      : stat.isSymbolicLink()
        ? 'l'
        : stat.isFile()
          ? 'f'
          : stat.isFIFO()
            ? 'p'
            : stat.isSocket()
              ? 's'
              : 'b'
    const key = `${stat.dev}:${stat.ino}`
    if (kind !== 'd' && stat.nlink > 1n && !inodes.has(key)) inodes.set(key, `link${inodes.size}`)
    const content =
      kind === 'f' ? createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16) : ''
    const target = kind === 'l' ? readlinkSync(path, 'latin1') : ''
    const device = kind === 'b' ? stat.rdev : ''
    const size = kind === 'f' ? stat.size : ''
    const links = kind === 'd' ? '' : `${stat.nlink}${inodes.get(key) ?? ''}`
    lines.push(
      [
        shown,
        kind,
        stat.mode.toString(8),
        stat.uid,
        stat.gid,
        stat.mtimeNs,
        links,
        size,
        target,
        device,
        content,
      ].join(' '),
    )
    if (kind === 'd') {
      for (const name of readdirSync(path, 'latin1').sort((a, b) => (a < b ? -1 : 1))) {
        visit(Buffer.concat([path, Buffer.from(`/${name}`, 'latin1')]), `${shown}/${name}`)
      }
    }
  }
  visit(Buffer.from(root), '.')
  return lines
}

/** A small tree with one of everything that a file system holds. */
export function makeOddTree(root: string): void {
  const at = (...names: string[]): string => join(root, ...names)
  const raw = (name: string): Buffer => Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')])
  mkdirSync(at('sub', 'deeper'), { recursive: true })
  mkdirSync(at('empty-directory'))
  writeFileSync(at('empty'), '')
  writeFileSync(at('small'), 'hello\n')
  writeFileSync(at('sub', 'same-as-small'), 'hello\n')
  writeFileSync(at('sub', 'big'), seededBytes('big', 5_000_000))
  writeFileSync(at('sub', 'compressible'), 'all work and no play\n'.repeat(100_000))
  writeFileSync(at('setuid'), '#!/bin/sh\n')
  chmodSync(at('setuid'), 0o4755)
  chmodSync(at('empty-directory'), 0o1777)
  symlinkSync('small', at('link'))
  symlinkSync('/nowhere/at/all', at('broken-link'))
  symlinkSync(Buffer.from([0x66, 0xff, 0xfe]), raw('link-to-odd'))
  writeFileSync(raw('not-utf8-\xff\xfe'), 'odd')
  mkdirSync(raw('dir-\xe9'))
  writeFileSync(raw('dir-\xe9/inside'), 'odd inside')
  writeFileSync(at('n'.repeat(255)), 'longest name')
  writeFileSync(at('line\nbreak and "quotes" \\ %41'), 'awkward')
  writeFileSync(at('ünïcödé-名前'), 'unicode')
  writeFileSync(at('linked-1'), 'linked content')
  linkSync(at('linked-1'), at('linked-2'))
  linkSync(at('linked-1'), at('sub', 'linked-3'))
  const sparse = openSync(at('sparse'), 'w')
  ftruncateSync(sparse, 20_000_000)
  writeSync(sparse, 'in the middle', 9_000_000)
  closeSync(sparse)
  makeFifo(raw('fifo'), 0o640)
  if (process.getuid?.() === 0) makeDevice(raw('device'), 0o600, 'character-device', 1, 3)
  let deep = root
  while (deep.length < 3000) {
    deep = join(deep, 'd'.repeat(200))
    mkdirSync(deep)
  }
  writeFileSync(join(deep, 'file'), 'deep down')
  utimesSync(at('small'), 1, 1)
  setModificationTime(raw('sub/big'), 1_234_567_890_123_456_789n)
  setModificationTime(raw('link'), 987_654_321_000_000_001n)
  setModificationTime(raw('empty-directory'), -5_000_000_001n)
  setModificationTime(raw('sub'), 1_500_000_000_000_000_007n)
}
