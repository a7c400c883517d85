import { hash } from 'node:crypto'
import { cutLength, cutParameters, gear } from '../../../protocol/cut.ts'
import { endsPart, listParameters } from '../../../protocol/objects.ts'
import { makeInput, type Recipe } from './stream.ts'

const { minChunkBytes: min, maxChunkBytes: max } = cutParameters

const inputs: [string, Recipe][] = [
  ['empty', { kind: 'zeros', length: 0 }],
  ['short', { kind: 'counter', seed: 'short', length: 1000 }],
  ['one byte less than the least', { kind: 'counter', seed: 'bounds', length: min - 1 }],
  ['exactly the least', { kind: 'counter', seed: 'bounds', length: min }],
  ['one byte more than the least', { kind: 'counter', seed: 'bounds', length: min + 1 }],
  ['zeros, exactly the most', { kind: 'zeros', length: max }],
  ['zeros, one byte more than the most', { kind: 'zeros', length: max + 1 }],
  ['zeros, 10,000,000 bytes', { kind: 'zeros', length: 10_000_000 }],
  [
    'a text of 26 bytes over and over',
    { kind: 'repeat', text: 'abcdefghijklmnopqrstuvwxyz', length: 5_000_000 },
  ],
  ['16 MiB of the counter stream', { kind: 'counter', seed: 'chunkdav', length: 16 * 1024 * 1024 }],
  [
    'the same with one byte in front',
    {
      kind: 'join',
      parts: [
        { kind: 'zeros', length: 1 },
        { kind: 'counter', seed: 'chunkdav', length: 16 * 1024 * 1024 },
      ],
    },
  ],
]

/** The lengths of the chunks of `bytes`. */
export function cutAll(bytes: Uint8Array): number[] {
  const lengths: number[] = []
  for (let start = 0; start < bytes.length; start += lengths.at(-1) as number) {
    lengths.push(cutLength(bytes, start, bytes.length, true))
  }
  return lengths
}

export function cutVectors(): unknown {
  return {
    parameters: cutParameters,
    gear: Array.from(gear, (word) => word >>> 0),
    cases: inputs.map(([name, input]) => {
      const bytes = makeInput(input)
      return { name, input, sha256: hash('sha256', bytes), lengths: cutAll(bytes) }
    }),
  }
}

/** The lengths of the parts of a list with these keys. */
export function cutList(keys: readonly (string | Buffer)[]): number[] {
  const lengths: number[] = []
  let position = 0
  for (const key of keys) {
    position++
    if (endsPart(key, position)) {
      lengths.push(position)
      position = 0
    }
  }
  return position > 0 ? [...lengths, position] : lengths
}

const formats: [string, string, (n: number) => string][] = [
  ['entry names', 'entry-{n}', (n) => `entry-${n}`],
  ['part ids', 'sha256:{SHA-256 of n in decimal}', (n) => `sha256:${hash('sha256', String(n))}`],
]

export function listVectors(): unknown {
  return {
    parameters: listParameters,
    cases: formats.flatMap(([name, key, make]) =>
      [0, 1, 256, 257, 20_000].map((count) => ({
        name,
        key,
        count,
        lengths: cutList(Array.from({ length: count }, (_, n) => make(n))),
      })),
    ),
    sameKey: {
      name: 'one key over and over, which never ends a part by itself',
      key: 'entry-0',
      count: 10_000,
      lengths: cutList(Array.from({ length: 10_000 }, () => 'entry-0')),
    },
  }
}
