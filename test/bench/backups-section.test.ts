import { describe, expect, test } from 'vitest'
import { render } from '../../bench/backups/backups.ts'
import { verdictsOf } from '../../bench/backups/bar.ts'
import type { Sample, Samples, Step } from '../../bench/backups/samples.ts'

const MiB = 1024 * 1024

function sample(tool: string, step: Step, round: number, seconds: number): Sample {
  return {
    corpus: 'tree',
    step,
    tool,
    round,
    seconds,
    clientCpuSeconds: seconds / 2,
    clientPeakBytes: (tool === 'chunkdav' ? 90 : 100) * MiB,
    ...(step !== 'restore' && { storedBytes: 50 * MiB }),
  }
}

/** Ours take `ours` seconds in each step and round, the others one. */
function samplesWith(ours: number): Samples {
  const steps: readonly Step[] = ['first', 'again', 'changed', 'restore']
  const tools = ['chunkdav', 'restic', 'borg']
  return {
    corpora: { tree: { files: 2000, bytes: 100 * MiB, at: '2026-01-02T03:04:05.000Z', commit: 'abc' } },
    tools: tools.map((name) => ({ name, version: '1', usage: `\`${name}\`` })),
    samples: [1, 2].flatMap((round) =>
      steps.flatMap((step) => tools.map((tool) => sample(tool, step, round, tool === 'chunkdav' ? ours : 1))),
    ),
    traffic: [{ corpus: 'tree', step: 'first', tool: 'restic', sentBytes: 20 * MiB, receivedBytes: 300 }],
    compared: tools,
  }
}

describe('the bar', () => {
  test.each([
    { ours: 0.4, missed: [] },
    // Half a hundredth is lost in what is shown, and so it is in the verdict.
    { ours: 0.404, missed: [] },
    { ours: 0.45, missed: ['again restic', 'again borg', 'restore borg'] },
  ])('ours in $ours of their time misses $missed', ({ ours, missed }) => {
    const names: Readonly<Record<string, string>> = {
      'second backup, nothing changed': 'again',
      'restore of the tree': 'restore',
    }
    const found = verdictsOf(samplesWith(ours)).filter(({ isMet }) => !isMet)
    expect(found.map(({ work, peer }) => `${names[work]} ${peer}`)).toEqual(missed)
  })

  test('what was not measured has no verdict', () => {
    expect(verdictsOf(samplesWith(1)).some(({ work }) => work.includes('random'))).toBe(false)
  })
})

test('the section says what is missed', () => {
  expect(render(samplesWith(0.3)).notes.at(-1)).toBe('The bar is reached everywhere.')
  expect(render(samplesWith(0.45)).notes.at(-1)).toContain(
    'restore of the tree beside borg (0.45 instead of 0.40)',
  )
})

test('a corpus that was measured at another commit says so', () => {
  const all = samplesWith(0.5)
  const random = { files: 1, bytes: 100, at: '2026-01-03T03:04:05.000Z', commit: 'def' }
  const notes = render({ ...all, corpora: { ...all.corpora, random } }).notes.join('\n')
  expect(notes).toContain('Measured 2026-01-02 03:04, commit abc.')
  expect(notes).not.toContain('commit def')
})

test('rounds are told as they were, also where a tool took part in fewer', () => {
  const all = samplesWith(0.5)
  expect(render(all).notes[0]).toContain('There were 2 rounds.')
  const samples = all.samples.filter(({ tool, round }) => tool !== 'borg' || round === 1)
  expect(render({ ...all, samples }).notes[0]).toContain('(borg, tree: 1)')
})

test('a row for each tool and step, with what was sent where there is a wire', () => {
  const table = render(samplesWith(0.5)).tables.find(({ caption }) => caption.startsWith('Tree'))
  expect(table?.rows).toHaveLength(12)
  const row = table?.rows.find(([work, tool]) => work === 'first backup' && tool === 'restic') ?? []
  const cells = Object.fromEntries(row.map((cell, index) => [table?.columns[index], cell]))
  expect(cells).toMatchObject({
    time: '1.00 s (1.00–1.00)',
    sent: '20 MiB',
    stored: '50 MiB',
    'CPU server': '–',
  })
  expect(cells['ours to theirs']).toBe('0.50 (0.50 to 0.50)')
})

test('charts have no background, and text for light and dark', () => {
  const [overview] = render(samplesWith(0.5)).charts ?? []
  expect(overview?.file).toBe('overview.svg')
  expect(overview?.svg).toContain('prefers-color-scheme: dark')
  expect(overview?.svg).not.toContain('NaN')
})

test('something else than results is refused', () => {
  expect(() => render({ tables: [] })).toThrow(TypeError)
})
