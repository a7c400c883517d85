import { hashId } from '../../../protocol/hash.ts'
import {
  type EncodedObject,
  encodeDirectoryObject,
  encodeDirectoryParts,
  encodeFileObject,
} from '../../../protocol/objects.ts'
import type { Entry, FileEntry } from '../../../protocol/schema.ts'

const a = hashId(Buffer.from('a'))
const b = hashId(Buffer.from('b'))
const legacy = hashId(Buffer.from('a'), 'sha256')
const attributes = { mode: 0o644, uid: 1000, gid: 1000, mtimeNs: '1700000000123456789' }
const file = (name: string): FileEntry => ({ kind: 'file', name, ...attributes, id: a, size: 1 })

const everyKind: Entry[] = [
  { kind: 'character-device', name: '.null', ...attributes, mtimeNs: '0', major: 1, minor: 3 },
  { kind: 'block-device', name: 'B', ...attributes, mtimeNs: '-1', major: 8, minor: 0 },
  { kind: 'file', name: 'a', ...attributes, id: a, size: 1 },
  { kind: 'directory', name: 'a.d', ...attributes, mode: 0o1777, id: b },
  {
    kind: 'file',
    name: 'big',
    ...attributes,
    mode: 0o4755,
    link: '1',
    id: b,
    size: 9_007_199_254_740_991,
    chunked: true,
    sparse: true,
  },
  { kind: 'fifo', name: 'fifo', ...attributes },
  { kind: 'symlink', name: 'link', ...attributes, mode: 0o777, target: '../ü "quoted" \\ target' },
  { kind: 'symlink', name: 'link64', ...attributes, mode: 0o777, target64: '/w==' },
  { kind: 'socket', name: 'socket', ...attributes },
  { kind: 'file', name: 'ä\u2028\u007f', ...attributes, id: legacy, size: 1 },
  { kind: 'file', name: '\u{1f4be}', ...attributes, id: a, size: 1 },
  { kind: 'file', name64: '/2E=', ...attributes, id: a, size: 1 },
]

function describeObject(name: string, encode: (algorithm: 'blake3' | 'sha256') => EncodedObject): unknown {
  const { id, bytes } = encode('blake3')
  return { name, text: bytes.toString('utf8'), blake3: id, sha256: encode('sha256').id }
}

function invalidFiles(): [string, string][] {
  const part = JSON.stringify({ id: a, size: 1 })
  return [
    ['no JSON', '{'],
    ['empty', ''],
    ['a byte order mark', `\ufeff{"type":"file","size":1,"parts":[${part}]}`],
    ['an array', `[${part}]`],
    ['another type', `{"type":"directory","size":1,"parts":[${part}]}`],
    ['no parts', '{"type":"file","size":0,"parts":[]}'],
    ['the sizes do not add up', `{"type":"file","size":2,"parts":[${part}]}`],
    ['an unknown member', `{"type":"file","size":1,"parts":[${part}],"more":1}`],
    ['an unknown member of a part', `{"type":"file","size":1,"parts":[{"id":"${a}","size":1,"more":1}]}`],
    ['chunked is false', `{"type":"file","size":1,"parts":[{"id":"${a}","size":1,"chunked":false}]}`],
    ['a size that is no integer', `{"type":"file","size":1.5,"parts":[{"id":"${a}","size":1.5}]}`],
    ['a negative size', `{"type":"file","size":-1,"parts":[{"id":"${a}","size":-1}]}`],
    [
      'a size above 2^53 - 1',
      `{"type":"file","size":9007199254740992,"parts":[{"id":"${a}","size":9007199254740992}]}`,
    ],
    ['a size as text', `{"type":"file","size":"1","parts":[{"id":"${a}","size":"1"}]}`],
    ['a malformed id', '{"type":"file","size":1,"parts":[{"id":"blake3:00","size":1}]}'],
  ]
}

function invalidDirectories(): [string, string][] {
  const directory = (...entries: object[]) => JSON.stringify({ type: 'directory', entries })
  const { name: _, ...nameless } = file('x')
  const link = { kind: 'symlink', name: 'x', ...attributes }
  return [
    ['neither entries nor parts', '{"type":"directory"}'],
    ['entries and parts', `{"type":"directory","entries":[],"parts":[{"id":"${a}","entries":1}]}`],
    ['no parts', '{"type":"directory","parts":[]}'],
    ['entries out of order', directory(file('b'), file('a'))],
    ['order of UTF-16, not of bytes', directory(file('\u{1f4be}'), file('\uff01'))],
    ['a name twice', directory(file('a'), file('a'))],
    ['an empty name', directory(file(''))],
    ['the name "."', directory(file('.'))],
    ['the name ".."', directory(file('..'))],
    ['a slash in a name', directory(file('a/b'))],
    ['NUL in a name', directory(file('a\u0000'))],
    ['a slash in a name64', directory({ kind: 'file', name64: '/y8=', ...attributes, id: a, size: 1 })],
    ['a lone surrogate in a name', directory(file('\ud800'))],
    ['no name', directory(nameless)],
    ['two names', directory({ ...file('x'), name64: '/w==' })],
    ['a name64 that is UTF-8', directory({ kind: 'file', name64: 'YQ==', ...attributes, id: a, size: 1 })],
    ['a name64 without padding', directory({ kind: 'file', name64: '/w', ...attributes, id: a, size: 1 })],
    ['a name64 with stray bits', directory({ kind: 'file', name64: '/x==', ...attributes, id: a, size: 1 })],
    [
      'a name64 in the URL alphabet',
      directory({ kind: 'file', name64: '_w==', ...attributes, id: a, size: 1 }),
    ],
    ['a symlink without target', directory(link)],
    ['a symlink with two targets', directory({ ...link, target: 'a', target64: '/w==' })],
    ['an empty target', directory({ ...link, target: '' })],
    ['NUL in a target', directory({ ...link, target: 'a\u0000b' })],
    ['an unknown kind', directory({ ...file('a'), kind: 'door' })],
    ['a file without id', directory({ kind: 'file', name: 'a', ...attributes, size: 1 })],
    ['a directory with a size', directory({ kind: 'directory', name: 'a', ...attributes, id: a, size: 1 })],
    ['a mode above 07777', directory({ ...file('a'), mode: 0o10000 })],
    ['a uid above 2^32 - 1', directory({ ...file('a'), uid: 2 ** 32 })],
    ['a time as a number', directory({ ...file('a'), mtimeNs: 1 })],
    ['a time with a leading zero', directory({ ...file('a'), mtimeNs: '01' })],
    ['a time of minus zero', directory({ ...file('a'), mtimeNs: '-0' })],
    ['a time with a fraction', directory({ ...file('a'), mtimeNs: '1.5' })],
    ['an unknown member', directory({ ...file('a'), more: 1 })],
  ]
}

export function objectVectors(): unknown {
  const inner = encodeFileObject(
    [
      { id: a, size: 1 },
      { id: b, size: 1 },
    ],
    undefined,
  )
  const digest = hashId(Buffer.from('abab'))
  return {
    files: [
      describeObject('two chunks', (algorithm) =>
        encodeFileObject(
          [
            { id: a, size: 1 },
            { id: b, size: 1 },
          ],
          hashId(Buffer.from('ab')),
          algorithm,
        ),
      ),
      describeObject('an inner list, without digest', (algorithm) =>
        encodeFileObject(
          [
            { id: a, size: 1 },
            { id: b, size: 1 },
          ],
          undefined,
          algorithm,
        ),
      ),
      describeObject('two inner lists', (algorithm) =>
        encodeFileObject(
          [
            { id: inner.id, size: 2, chunked: true },
            { id: inner.id, size: 2, chunked: true },
          ],
          digest,
          algorithm,
        ),
      ),
    ],
    directories: [
      describeObject('empty', (algorithm) => encodeDirectoryObject([], algorithm)),
      describeObject('one file', (algorithm) => encodeDirectoryObject([file('a')], algorithm)),
      describeObject('every kind of entry', (algorithm) => encodeDirectoryObject(everyKind, algorithm)),
      describeObject('two parts', (algorithm) =>
        encodeDirectoryParts(
          [
            { id: a, entries: 300 },
            { id: b, entries: 1 },
          ],
          algorithm,
        ),
      ),
    ],
    invalidFiles: invalidFiles().map(([reason, text]) => ({ reason, text })),
    invalidDirectories: invalidDirectories().map(([reason, text]) => ({ reason, text })),
    notUtf8: {
      reason: 'bytes that are not UTF-8 (in hex: no JSON text can hold them)',
      hex: Buffer.concat([
        Buffer.from('{"type":"directory","entries":[{"kind":"fifo","name":"'),
        Buffer.from([0xff]),
        Buffer.from('","mode":0,"uid":0,"gid":0,"mtimeNs":"0"}]}'),
      ]).toString('hex'),
    },
  }
}
