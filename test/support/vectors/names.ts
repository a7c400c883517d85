import { idToBytes, parseId } from '../../../protocol/id.ts'
import { formatCheckpointName, parseCheckpointName } from '../../../protocol/url.ts'

const digits = '00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210'

export function idVectors(): unknown {
  const texts = [
    `blake3:${digits}`,
    `sha256:${digits}`,
    `blake3:${'0'.repeat(64)}`,
    `sha256:${'f'.repeat(64)}`,
  ]
  return {
    valid: texts.map((text) => ({ text, binaryHex: idToBytes(parseId(text)).toString('hex') })),
    invalid: [
      { text: '', reason: 'empty' },
      { text: digits, reason: 'no algorithm' },
      { text: `:${digits}`, reason: 'an empty algorithm' },
      { text: 'blake3:', reason: 'no digest' },
      { text: `blake3:${digits.slice(1)}`, reason: '63 digits' },
      { text: `blake3:${digits}0`, reason: '65 digits' },
      { text: `blake3:${digits.toUpperCase()}`, reason: 'upper-case digits' },
      { text: `BLAKE3:${digits}`, reason: 'upper-case algorithm' },
      { text: `blake3:${digits.slice(1)}g`, reason: 'a letter that is no digit' },
      { text: `blake3-${digits}`, reason: 'no colon' },
      { text: `sha512:${digits}`, reason: 'another algorithm' },
      { text: `md5:${digits.slice(32)}`, reason: 'another algorithm' },
      { text: ` blake3:${digits}`, reason: 'a space in front' },
      { text: `blake3:${digits} `, reason: 'a space behind' },
      { text: `blake3:${digits}\n`, reason: 'a line feed behind' },
      { text: `blake3:${digits}\u0000`, reason: 'NUL behind' },
      { text: `blake3:+${digits.slice(1)}`, reason: 'a sign' },
      { text: `blake3:0x${digits.slice(2)}`, reason: 'a prefix' },
      { text: `blake3:${digits.replace('0', '٠')}`, reason: 'a digit of another script' },
      { text: `blake3%3A${digits}`, reason: 'percent-encoded' },
    ],
    invalidBinaryHex: [
      { binaryHex: `00${digits}`, reason: 'algorithm 0' },
      { binaryHex: `03${digits}`, reason: 'algorithm 3' },
      { binaryHex: `ff${digits}`, reason: 'algorithm 255' },
      { binaryHex: `01${digits.slice(2)}`, reason: '32 bytes' },
      { binaryHex: '', reason: 'empty' },
    ],
  }
}

export function nameVectors(): unknown {
  const long = 'x'.repeat(200)
  return {
    vaults: {
      valid: ['a', '0', 'home', 'my-vault_2.old', 'a.b', long.slice(0, 63)],
      invalid: [
        '',
        '-',
        '-a',
        '.a',
        '_a',
        'A',
        'a b',
        'a/b',
        'a..b',
        '..',
        'ä',
        'a\n',
        'a%20b',
        long.slice(0, 64),
      ],
    },
    sources: {
      valid: ['a', '0', 'Laptop-2.home_dir', long.slice(0, 128)],
      invalid: ['', '-a', '.a', '_a', 'a b', 'a/b', 'a..b', '..', 'ä', 'a\n', long.slice(0, 129)],
    },
    checkpointHeader: {
      valid: ['a/1', 'Laptop-2.home/2147483647', 'a/10'].map((value) => {
        const name = parseCheckpointName(value)
        return { value: formatCheckpointName(name), ...name }
      }),
      invalid: [
        '',
        'a',
        'a/',
        '/1',
        'a/0',
        'a/01',
        'a/-1',
        'a/+1',
        'a/1.0',
        'a/1e3',
        'a/2147483648',
        'a/99999999999',
        'a/1/',
        'a/1/2',
        ' a/1',
        'a/1 ',
        'a b/1',
        '../1',
        'a/latest',
      ],
    },
  }
}
