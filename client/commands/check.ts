/** `chunkdav check URL` */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import prettyBytes from 'pretty-bytes'
import { Problem } from '../../protocol/problem.ts'
import type { CheckpointState, ScrubFinding, ScrubReport, ScrubState } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { createProgress, duration, type Progress } from '../progress.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { type ReadBackProblem, readBack } from '../restore/read-back.ts'
import { noBackupOf, selectCheckpoint, selectSource } from '../select-checkpoint.ts'
import { cancelledBy } from '../transport-problem.ts'
import { decodePath } from '../tree-url.ts'
import type { CommandContext } from './context.ts'
import { receiverArgument, withReceiver } from './receiver-command.ts'
import { plural, reasonOf, showPath } from './report.ts'
import { shownPath } from './tree-command.ts'
import { jsonProgressOption, parseCheckpointOption } from './vault-command.ts'

interface CheckOptions {
  readonly source?: string
  readonly readBack: boolean
  readonly checkpoint?: number | 'latest'
  readonly share?: number
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav check http://127.0.0.1:8420/home
  chunkdav check http://127.0.0.1:8420/home --source laptop
  chunkdav check --read-back http://127.0.0.1:8420/home --share 10%
  chunkdav check --read-back http://127.0.0.1:8420/home --checkpoint latest

The receiver reads and hashes everything that it stores, whoever backed it up, and looks whether all backups and the
live tree are whole. It goes on when this command is stopped; run it again to see how far it is. What is damaged is put
aside, so that the next backup sends it again: back up, then check once more.
With --read-back the receiver is not believed: every file of the backups is fetched and verified here, as by a restore
that writes nothing. Content that backups share is read once. --share takes other files each time.
Exit codes: 0 all is sound, 1 damage was found (each file is listed), or it could not be checked, 2 wrong usage.`

/** Adds `check` to the program. */
export function registerCheck(program: Command, context: CommandContext): void {
  program
    .command('check')
    .description('Check that everything stored is sound, or read all backups back')
    .argument(...receiverArgument)
    .option('--source <name>', 'only the backups of this source (default: all)')
    .option('--read-back', 'fetch and verify the backups here, instead of asking the receiver to', false)
    .option(
      '--checkpoint <n>',
      'with --read-back: only this one, its number or latest',
      parseCheckpointOption,
    )
    .option('--share <percent>', 'with --read-back: read so many of the files, such as 10%', parseShare)
    .option(...jsonProgressOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: CheckOptions) => check(url, options, context))
}

function parseShare(text: string): number {
  const percent = /^(\d{1,3}(?:\.\d{1,3})?)%$/.exec(text)?.[1]
  const share = Number(percent) / 100
  if (share > 0 && share <= 1) return share
  throw new InvalidArgumentError('It must be a percentage above 0, such as 10%.')
}

async function check(url: string, options: CheckOptions, context: CommandContext): Promise<void> {
  const source = options.source === undefined ? undefined : parseSourceName(options.source)
  if (!options.readBack && (options.checkpoint !== undefined || options.share !== undefined)) {
    const option = options.share === undefined ? '--checkpoint' : '--share'
    throw new Problem('usage', `${option} goes with --read-back`)
  }
  await withReceiver(url, context, async (client) => {
    const progress = createProgress({
      stream: context.stderr,
      isTTY: context.stderrIsTerminal,
      json: options.json ? context.emit : undefined,
    })
    try {
      if (options.readBack) await checkHere(client, source, options, context, progress)
      else await checkThere(client, source, options, context, progress)
    } finally {
      progress.stop()
    }
  })
}

// -- by the receiver --------------------------------------------------------------------------------------

/** How often the receiver is asked how far it is: a small vault is done at once. */
const firstPollMs = 50
const lastPollMs = 500

type LastRun = NonNullable<ScrubState['last']>

async function checkThere(
  client: ReceiverClient,
  source: string | undefined,
  options: CheckOptions,
  context: CommandContext,
  progress: Progress,
): Promise<void> {
  const { signal } = context
  if (source !== undefined && !(await client.sources({ signal })).includes(source)) {
    throw await noBackupOf(source, client, signal)
  }
  const last = await untilEnded(client, signal, progress)
  progress.stop()
  if (last.outcome !== 'done') {
    const why = last.outcome === 'stopped' ? 'somebody stopped it, or the receiver' : (last.detail ?? '')
    throw new Problem('unavailable', `not everything was checked: ${why}; run the same command again`)
  }
  const { report } = last
  const harmed = harmOf(report, source)
  const found = source === undefined ? report.found : []
  if (!options.json) for (const finding of found) context.warn(findingLine(finding))
  else for (const finding of found) context.emit({ type: 'problem', code: 'chunk-corrupt', ...finding })
  for (const each of harmed) tellHarm(each, options, context)
  const isSound = harmed.length === 0 && (source !== undefined || isClean(report))
  if (!isSound) context.exitWith(1)
  tellThere(client, source, last, isSound, harmed, options, context)
}

function isClean({ badRecords, strayRows }: ScrubReport): boolean {
  return badRecords === 0 && strayRows === 0
}

/** Begins, follows it, and returns how it ended. */
async function untilEnded(client: ReceiverClient, signal: AbortSignal, progress: Progress): Promise<LastRun> {
  let state = await client.beginScrub({ signal })
  let pollMs = firstPollMs
  const startedAt = state.running?.startedAt
  while (state.running !== undefined && state.running.startedAt === startedAt) {
    const { bytes, totalBytes, records } = state.running.progress
    progress.update({ filesDone: records, bytesDone: bytes, bytesTotal: totalBytes, unit: 'block' })
    try {
      await sleep(pollMs, undefined, { signal })
    } catch (error) {
      if (error instanceof Error && error.name === 'AbortError') throw cancelledBy(signal)
      throw error
    }
    pollMs = Math.min(lastPollMs, pollMs * 1.5)
    state = await client.scrubState({ signal })
  }
  if (state.last !== undefined) return state.last
  throw new Problem(
    'unavailable',
    'the receiver does not tell how the check ended; run the same command again',
  )
}

/** A checkpoint, or the live tree, with what of it is harmed. */
interface Harmed {
  readonly source?: string
  readonly number?: number
  readonly count: number
  readonly paths: readonly string[]
}

function harmOf({ harm }: ScrubReport, source: string | undefined): Harmed[] {
  if (harm === undefined) return []
  const checkpoints = harm.checkpoints.filter((each) => source === undefined || each.source === source)
  return [...checkpoints, ...(harm.tree === undefined || source !== undefined ? [] : [harm.tree])]
}

function findingLine({ pack, offset, damage, lostChunks, quarantined }: ScrubFinding): string {
  const place = `pack ${pack}${offset === undefined ? '' : ` at byte ${offset}`}`
  const aside = quarantined ? '; its bytes are in quarantine/' : ''
  return `${place}: ${damage}; ${plural(lostChunks, 'chunk')} lost${aside}`
}

function tellHarm(
  { source, number, count, paths }: Harmed,
  { json }: CheckOptions,
  context: CommandContext,
): void {
  const place = source === undefined ? 'the live tree' : `${source}/${number}`
  const about = source === undefined ? {} : { source, checkpoint: number }
  for (const path of paths) {
    const names = decodePath(path)
    const shown = names.length === 0 ? '.' : shownPath(names)
    if (json) context.emit({ type: 'problem', code: 'missing-chunks', ...about, path: shown })
    else context.warn(`${place}: ${shown}: its content is damaged or gone`)
  }
  const more = count - paths.length
  if (more <= 0) return
  if (json) context.emit({ type: 'problem', code: 'missing-chunks', ...about, more })
  else if (paths.length > 0) context.warn(`${place}: and ${plural(more, 'more path')}`)
  else context.warn(`${place}: ${plural(more, 'part')} of it damaged or gone`)
}

function tellThere(
  client: ReceiverClient,
  source: string | undefined,
  { startedAt, finishedAt, report }: LastRun,
  isSound: boolean,
  harmed: readonly Harmed[],
  { json }: CheckOptions,
  context: CommandContext,
): void {
  const { bytes, records, chunks, badRecords, strayRows, lostChunks, healedChunks, harm } = report
  const durationSeconds = (Date.parse(finishedAt) - Date.parse(startedAt)) / 1000
  if (json) {
    const counts = { bytes, records, chunks, badRecords, strayRows, lostChunks, healedChunks }
    const missing = { missingChunks: harm?.missingChunks ?? 0, harmed: harmed.length }
    context.emit({ type: 'summary', sound: isSound, ...counts, ...missing, durationSeconds })
    return
  }
  const what = source === undefined ? client.location.shown : `${source} in ${client.location.shown}`
  const read = `${plural(chunks, 'chunk')} in ${plural(records, 'block')}, ${prettyBytes(bytes)}, ${duration(durationSeconds)}`
  if (isSound) {
    context.say(`${what} is sound.`)
    context.say(`  ${read}`)
    if (!isClean(report)) context.say('  There is damage elsewhere in the vault: check without --source.')
    return
  }
  context.say(`${what} is damaged.`)
  context.say(`  ${read}`)
  const bad = badRecords + strayRows
  if (bad > 0) {
    const healed = healedChunks === 0 ? '' : `, ${healedChunks} of them healed from another copy`
    context.say(`  ${plural(lostChunks, 'chunk')} lost in ${plural(bad, 'place')}${healed}`)
  }
  const missing = harm?.missingChunks ?? 0
  if (missing > 0) context.say(`  ${plural(missing, 'chunk')} missing of what is kept`)
  if (harmed.length === 0) context.say('  No backup and no file is harmed.')
  else context.say('  Back up again what is still there: that sends what is missing. Then check once more.')
}

// -- here -------------------------------------------------------------------------------------------------

async function checkHere(
  client: ReceiverClient,
  source: string | undefined,
  options: CheckOptions,
  context: CommandContext,
  progress: Progress,
): Promise<void> {
  const { signal } = context
  const started = performance.now()
  const checkpoints = await chosen(client, source, options, signal)
  const [only] = checkpoints.length === 1 && options.share === undefined ? checkpoints : []
  const totals = only?.totals ?? (only?.itemBytes === undefined ? undefined : { bytes: only.itemBytes })
  const counts = await readBack({
    client,
    checkpoints,
    ...(options.share === undefined ? {} : { share: options.share }),
    onProgress: ({ filesRead, filesKnown, bytesRead }) =>
      progress.update({
        filesDone: filesRead + filesKnown,
        filesTotal: only?.totals?.files,
        bytesDone: bytesRead,
        bytesTotal: totals?.bytes,
      }),
    onProblem: (problem) => tellProblem(problem, options, context),
    signal,
  })
  progress.stop()
  const durationSeconds = Math.round(performance.now() - started) / 1000
  if (counts.problems > 0) context.exitWith(1)
  if (options.json) {
    context.emit({ type: 'summary', sound: counts.problems === 0, ...counts, durationSeconds })
    return
  }
  const what = plural(counts.checkpoints, 'backup')
  const verdict =
    counts.problems === 0 ? 'can be read back' : `read back: ${plural(counts.problems, 'problem')}`
  context.say(`${what} of ${client.location.shown} ${verdict}.`)
  const known = counts.filesKnown > 0 ? `, ${counts.filesKnown} more with the content of these` : ''
  const skipped = counts.filesSkipped > 0 ? `, ${plural(counts.filesSkipped, 'file')} left out this time` : ''
  context.say(`  ${plural(counts.filesRead, 'file')} verified${known}${skipped}`)
  context.say(`  ${prettyBytes(counts.bytesRead)} read, ${duration(durationSeconds)}`)
}

/** The checkpoints that are meant, the newest of each source first: what is wrong now shows first. */
async function chosen(
  client: ReceiverClient,
  only: string | undefined,
  { checkpoint }: CheckOptions,
  signal: AbortSignal,
): Promise<CheckpointState[]> {
  if (typeof checkpoint === 'number') {
    const source = await selectSource(client, only, signal)
    return [await selectCheckpoint(client, source, checkpoint, signal)]
  }
  const sources = only === undefined ? await client.sources({ signal }) : [only]
  const found: CheckpointState[] = []
  for (const source of sources) {
    const all = await client.listCheckpoints(source, { signal })
    const committed = all.filter(({ state }) => state === 'committed').reverse()
    if (committed.length === 0 && only !== undefined) throw await noBackupOf(source, client, signal)
    found.push(...(checkpoint === 'latest' ? committed.slice(0, 1) : committed))
  }
  if (found.length > 0) return found
  throw new Problem('checkpoint-not-found', `there are no backups in ${client.location.shown} yet`)
}

function tellProblem(problem: ReadBackProblem, { json }: CheckOptions, context: CommandContext): void {
  const { source, checkpoint, code, id } = problem
  const path = problem.path.length === 0 ? '.' : showPath(problem.path)
  const detail = reasonOf(problem.detail)
  if (json) context.emit({ type: 'problem', source, checkpoint, path, code, detail, ...(id && { id }) })
  else context.warn(`${source}/${checkpoint}: ${path}: ${detail}`)
}
