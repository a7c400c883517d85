/** Tables and charts of what was measured. */
import { drawBars } from '../bar-chart.ts'
import { median } from '../figures.ts'
import type { Chart, Section, Table } from '../section.ts'
import { verdictsOf } from './bar.ts'
import type { CorpusName } from './corpora.ts'
import { type Ratio, ratioOf } from './ratios.ts'
import { ours, roundsOf, type Sample, type Samples, type Step, samplesOf } from './samples.ts'

const corpusTitles: Readonly<Record<CorpusName, string>> = {
  tree: 'Tree of real files',
  few: 'A few real files, beside rclone',
  random: 'One file of random bytes',
  source: 'Source tree of small files',
  image: 'Disk image',
}

const corpusNames = Object.keys(corpusTitles) as CorpusName[]
const steps: readonly Step[] = ['first', 'again', 'changed', 'restore']

export function samplesOfRaw(raw: unknown): Samples {
  const isSamples = typeof raw === 'object' && raw !== null && 'samples' in raw && 'tools' in raw
  if (!isSamples) throw new TypeError('these are no results of the backups')
  return raw as Samples
}

export function sectionOf(all: Samples): Section {
  const verdicts = verdictsOf(all)
  const bar: Table = {
    caption: 'The bar: ours divided by theirs, median of the rounds (least to greatest)',
    columns: ['work', 'beside', 'at most', 'measured', ''],
    rows: verdicts.map(({ work, peer, goal, ratio, isMet }) => [
      work,
      peer,
      goal.toFixed(2),
      showRatio(ratio),
      isMet ? 'reached' : '**missed**',
    ]),
  }
  return {
    title: 'Whole backups',
    notes: [...howMeasured(all), missedOf(all)],
    tables: [bar, ...corpusNames.flatMap((corpus) => tableOf(all, corpus))],
    charts: chartsOf(all),
  }
}

function missedOf(all: Samples): string {
  const missed = verdictsOf(all).filter(({ isMet }) => !isMet)
  if (missed.length === 0) return 'The bar is reached everywhere.'
  const each = missed.map(
    ({ work, peer, goal, ratio }) =>
      `${work} beside ${peer} (${ratio.median.toFixed(2)} instead of ${goal.toFixed(2)})`,
  )
  return `**The bar is missed** in: ${each.join('; ')}.`
}

function howMeasured(all: Samples): string[] {
  const tools = all.tools.map(({ name, version, usage }) => `- ${name} ${version}: ${usage}.`)
  return [
    `Client and server run on this machine. In each round every tool does the same work once, one after the other, with a fresh repository and a fresh home, on servers that run on; ` +
      `who begins moves on from round to round. ${roundsText(all)} Before each timing the source and what the tool keeps are read once, so that both come from memory; \`sync\` runs, so that nobody writes for somebody else; and 2 GiB of the page cache are filled and given back, so that nobody waits for memory that the host of a virtual machine has taken away. Ratios are taken within a round. ` +
      'Only a borg repository and our receiver have the backup durable on disk when the command ends: `rclone serve` and casync sync nothing (seen with strace). No restore syncs what it has written.',
    `Times are wall time of the command, its start and end included: the median, with the least and the greatest. All other figures are medians. CPU and peak memory of clients are what \`wait4\` tells (GNU time), those of servers CPU ticks and \`VmHWM\` of /proc, reset before each step; borg and casync have no server, so that what others do there is in their client. ` +
      'Stored is the sum of the sizes of all files in the repository. Sent and received were counted by a relay of TCP in a run of its own that is not timed: HTTP with its heads, without TCP and IP. ' +
      `After that run the restored tree was compared with its source: content, modes, times and links (of rclone content alone); equal for ${all.compared.join(', ')}.`,
    corpusNames.flatMap((name) => factsOf(all, name)).join('\n'),
    tools.join('\n'),
  ]
}

function factsOf(all: Samples, name: CorpusName): string[] {
  const corpus = all.corpora[name]
  if (corpus === undefined) return []
  const newest = Object.values(all.corpora).toSorted((a, b) => (a.at < b.at ? 1 : -1))[0]
  const isOther = corpus.commit !== newest?.commit
  const when = isOther
    ? ` Measured ${corpus.at.slice(0, 16).replace('T', ' ')}, commit ${corpus.commit}.`
    : ''
  const count = corpus.files === 1 ? 'one file' : `${corpus.files.toLocaleString('en')} files`
  return [`- ${corpusTitles[name]}: ${count}, ${size(corpus.bytes)}${about[name]}.${when}`]
}

/** How many rounds there were, and who took part in fewer. */
function roundsText(all: Samples): string {
  const counts = corpusNames.flatMap((corpus) =>
    all.tools.map(({ name }) => ({ corpus, name, rounds: roundsOf(all, corpus, name) })),
  )
  const took = counts.filter(({ rounds }) => rounds > 0)
  const most = Math.max(...took.map(({ rounds }) => rounds))
  const fewer = took.filter(({ rounds }) => rounds < most)
  const each = fewer.map(({ corpus, name, rounds }) => `${name}, ${short[corpus]}: ${rounds}`)
  const exceptions = fewer.length === 0 ? '' : `, but for what takes longer (${each.join('; ')})`
  return `${most === 1 ? 'There was one round' : `There were ${most} rounds`}${exceptions}.`
}

const about: Readonly<Record<CorpusName, string>> = {
  tree: '. What lies two levels below /usr, in the order of the SHA-256 of its path, each taken whole unless the number of files or bytes would be exceeded. For "1 % changed" a line is put into one file in a hundred, others in each round',
  few: ', chosen by the same rule. rclone waits 10 ms between requests to a WebDAV server, so that the whole tree would take it a quarter of an hour',
  random: ', the key stream of a cipher',
  source: ', text like source code from a seeded generator',
  image:
    ': extents of zeros, text and random bytes. "Changed" is a second version with 1 % of its 4 KiB blocks changed, in runs of 1 to 32',
}

/** There is less room in a chart. */
const barTitle = (corpus: CorpusName, step: Step): string =>
  step === 'again'
    ? 'nothing changed'
    : step === 'changed' && corpus === 'tree'
      ? '1 % changed'
      : stepTitles(corpus)[step]

const stepTitles = (corpus: CorpusName): Readonly<Record<Step, string>> => ({
  first: 'first backup',
  again: 'again, nothing changed',
  changed: corpus === 'image' ? 'second version' : 'again, 1 % changed',
  restore: 'restore',
})

function tableOf(all: Samples, corpus: CorpusName): Table[] {
  const rows = steps.flatMap((step) =>
    all.tools.flatMap(({ name }) => {
      const samples = samplesOf(all, corpus, step, name)
      if (samples.length === 0) return []
      const ratio = ratioOf(secondsIn(samplesOf(all, corpus, step, ours)), secondsIn(samples))
      return [
        [stepTitles(corpus)[step], name, ...figuresOf(all, samples), name === ours ? '' : showRatio(ratio)],
      ]
    }),
  )
  if (rows.length === 0) return []
  const figures = [
    'time',
    'CPU client',
    'CPU server',
    'peak client',
    'peak server',
    'sent',
    'received',
    'stored',
  ]
  return [{ caption: corpusTitles[corpus], columns: ['work', 'tool', ...figures, 'ours to theirs'], rows }]
}

function figuresOf(all: Samples, samples: readonly Sample[]): string[] {
  const middle = (value: (one: Sample) => number | undefined, show: (value: number) => string): string => {
    const values = samples.map(value).filter((one) => one !== undefined)
    return values.length === 0 ? '–' : show(median(values))
  }
  const [first] = samples
  const traffic = all.traffic.find(
    ({ corpus, step, tool }) => corpus === first?.corpus && step === first.step && tool === first.tool,
  )
  return [
    spread(samples.map((one) => one.seconds)),
    middle((one) => one.clientCpuSeconds, seconds),
    middle((one) => one.server?.cpuSeconds, seconds),
    middle((one) => one.clientPeakBytes, size),
    middle((one) => one.server?.peakBytes, size),
    traffic === undefined ? '–' : size(traffic.sentBytes),
    traffic === undefined ? '–' : size(traffic.receivedBytes),
    middle((one) => one.storedBytes, size),
  ]
}

function chartsOf(all: Samples): Chart[] {
  const treeTools = all.tools
    .map(({ name }) => name)
    .filter((name) => samplesOf(all, 'tree', 'first', name).length > 0)
  if (!treeTools.includes(ours)) return []
  const seconds = (corpus: CorpusName, step: Step, tool: string): number | undefined => {
    const samples = samplesOf(all, corpus, step, tool)
    return samples.length === 0 ? undefined : median(samples.map((one) => one.seconds))
  }
  const timesOurs = (step: Step, tool: string): number | undefined => {
    if (tool === ours) return 1
    return ratioOf(
      secondsIn(samplesOf(all, 'tree', step, tool)),
      secondsIn(samplesOf(all, 'tree', step, ours)),
    )?.median
  }
  const peers = treeTools.filter((tool) => tool !== 'casync')
  const overview = drawBars({
    title: 'Time for a tree of real files, chunkdav = 1 (shorter is faster)',
    groups: steps.map((step) => barTitle('tree', step)),
    series: peers.map((name) => ({ name, values: steps.map((step) => timesOurs(step, name)) })),
    label: (value) => value.toFixed(value < 10 ? 1 : 0),
  })
  const others: readonly (readonly [CorpusName, Step])[] = [
    ['random', 'first'],
    ['source', 'first'],
    ['source', 'again'],
    ['image', 'first'],
    ['image', 'changed'],
  ]
  const absolute = (
    title: string,
    work: readonly (readonly [CorpusName, Step])[],
    names: readonly string[],
  ): string =>
    drawBars({
      title,
      groups: work.map(([corpus, step]) =>
        corpus === 'tree' ? barTitle(corpus, step) : `${short[corpus]}, ${barTitle(corpus, step)}`,
      ),
      series: names.map((name) => ({
        name,
        values: work.map(([corpus, step]) => seconds(corpus, step, name)),
      })),
      label: (value) => Number(value.toPrecision(2)).toString(),
    })
  const peaks = drawBars({
    title: 'Peak memory of the client, MiB',
    groups: steps.map((step) => barTitle('tree', step)),
    series: treeTools.map((name) => ({
      name,
      values: steps.map((step) =>
        median(samplesOf(all, 'tree', step, name).map((one) => one.clientPeakBytes / MiB)),
      ),
    })),
    label: (value) => value.toFixed(0),
  })
  const allNames = all.tools.map(({ name }) => name)
  const treeWork = steps.map((step) => ['tree', step] as const)
  return [
    {
      file: 'overview.svg',
      alt: 'First backup, nothing changed, 1 % changed and restore, beside restic and borg',
      svg: overview,
    },
    {
      file: 'tree.svg',
      alt: 'Seconds for a tree of real files',
      svg: absolute('Tree of real files, seconds', treeWork, treeTools),
    },
    {
      file: 'others.svg',
      alt: 'Seconds for the other corpora',
      svg: absolute('Other corpora, seconds', others, allNames),
    },
    { file: 'memory.svg', alt: 'Peak memory of the client', svg: peaks },
  ]
}

const short: Readonly<Record<CorpusName, string>> = {
  tree: 'tree',
  few: 'few files',
  random: 'random',
  source: 'source tree',
  image: 'image',
}

const MiB = 1024 * 1024

function secondsIn(samples: readonly Sample[]): { round: number; value: number }[] {
  return samples.map(({ round, seconds: value }) => ({ round, value }))
}

function showRatio(ratio: Ratio | undefined): string {
  if (ratio === undefined) return '–'
  return `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})`
}

function spread(values: readonly number[]): string {
  return `${median(values).toFixed(2)} s (${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)})`
}

function seconds(value: number): string {
  return `${value.toFixed(2)} s`
}

function size(bytes: number): string {
  if (bytes < 10 * 1024) return `${bytes.toFixed(0)} B`
  if (bytes < 10 * MiB) return `${(bytes / 1024).toFixed(0)} KiB`
  return `${(bytes / MiB).toFixed(0)} MiB`
}
