import { expect, test } from 'vitest'
import { handWritten, type Measured, tableText, writeReport } from '../../bench/report.ts'

const machine = {
  processor: 'a processor',
  cores: 2,
  memoryBytes: 8 * 1024 ** 3,
  system: 'a system',
  disk: 'a disk',
  node: '24.0.0',
  commit: 'abc',
}

function measured(changes: Partial<Measured> = {}): Measured {
  const section = {
    title: 'Work',
    notes: ['A note.'],
    tables: [{ caption: 'Times', columns: ['work', 'time'], rows: [['a | b', '1.00 s']] }],
    charts: [{ file: 'work.svg', alt: 'Times of work', svg: '<svg/>' }],
  }
  return { at: '2026-01-02T03:04:05.000Z', tookSeconds: 1, quick: false, machine, section, ...changes }
}

test('what is written by hand stays, the rest is made anew', () => {
  const first = writeReport({ work: measured() }, '')
  const edited = first
    .replace(
      '## What was found, and the next limit',
      '## What was found, and the next limit\n\nIt was the hash.',
    )
    .replace('A note.', 'An old note.')
  const second = writeReport({ work: measured() }, edited)
  expect(second).toContain('It was the hash.')
  expect(second).not.toContain('An old note.')
  expect(writeReport({ work: measured() }, second)).toBe(second)
})

test('damaged markers are refused, before anything is lost', () => {
  const damaged = writeReport({ work: measured() }, '').replace('<!-- written by hand: end -->', '')
  expect(() => handWritten(damaged)).toThrow('markers')
  expect(() => writeReport({ work: measured() }, damaged)).toThrow('markers')
})

test('a quick run, and a part of another day or commit, are told', () => {
  expect(writeReport({ work: measured({ quick: true }) }, '')).toContain('--quick`**')
  const older = measured({ at: '2025-12-31T00:00:00.000Z' })
  expect(writeReport({ old: older, work: measured() }, '')).toContain(
    'Measured 2025-12-31 00:00, commit abc.',
  )
  expect(writeReport({ work: measured() }, '')).not.toContain('Measured 20')
})

test('tables: figures stand to the right, a bar in a cell does not end it', () => {
  const text = tableText({ caption: 'C', columns: ['work', 'time', 'tool'], rows: [['a | b', '1.0 s', 'x']] })
  expect(text).toBe('### C\n\n| work | time | tool |\n|---|---:|---|\n| a \\| b | 1.0 s | x |')
})
