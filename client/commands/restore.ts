/** `chunkdav restore URL --to DIR` */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import prettyBytes from 'pretty-bytes'
import { hashImplementations } from '../../protocol/hash.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import { posixAvailable } from '../posix.ts'
import { createProgress, duration, type Progress } from '../progress.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { type RestoreSummary, restore } from '../restore/restore.ts'
import type { RestoreProblem } from '../restore/restore-log.ts'
import { restoreStream } from '../restore/stream-restore.ts'
import { selectCheckpoint, selectSource } from '../select-checkpoint.ts'
import { WebDavBackups } from '../targets/webdav-backups.ts'
import { tuneForWork } from '../v8-tuning.ts'
import type { CommandContext } from './context.ts'
import { plural, tellProblem } from './report.ts'
import {
  collectPath,
  jsonProgressOption,
  notEmpty,
  parseCheckpointOption,
  sourceOption,
  vaultArgument,
  withVault,
} from './vault-command.ts'

interface RestoreCommandOptions {
  readonly to: string
  readonly source?: string
  readonly checkpoint: number | 'latest'
  readonly include: Buffer[]
  readonly overwrite: boolean
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav restore http://127.0.0.1:8420/home --to ~/restored
  chunkdav restore http://127.0.0.1:8420/home --to /tmp/one --include docs/letter.odt --checkpoint 12
  chunkdav restore http://127.0.0.1:8420/dumps --source shop --to - | psql shop

Content, modes, times, links and holes come back as they were; owners and devices when it is run as root.
Whatever stands at the destination already and is equal is kept, so that a restore that was interrupted goes
on when it is run again; what differs is reported, and replaced only with --overwrite.
With --to - one file, or a backup of one stream, goes to standard output; messages go to standard error.
Exit codes: 0 all restored, 1 something could not be (each path is listed), 2 wrong usage.`

const toHelp =
  'where to (required): a directory; for a list of chunks (backup --as chunks) of one stream, a file; ' +
  'or - for standard output'

const includeHelp =
  "only this path and what is below it, as ls lists it: relative to the backup's root (repeatable)"

/** Adds `restore` to the program. */
export function registerRestore(program: Command, context: CommandContext): void {
  program
    .command('restore')
    .description('Restore a backup, or some of its paths')
    .argument(...vaultArgument)
    .requiredOption('--to <dir>', toHelp, notEmpty)
    .option(...sourceOption)
    .option('--checkpoint <n>', 'which one: its number, or latest', parseCheckpointOption, 'latest')
    .option('--include <path>', includeHelp, collectPath, [])
    .option('--overwrite', 'replace what stands at the destination and differs', false)
    .option(...jsonProgressOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: RestoreCommandOptions) =>
      withVault(url, context, (client) => run(client, options, context)),
    )
}

async function run(
  client: ReceiverClient | WebDavBackups,
  options: RestoreCommandOptions,
  context: CommandContext,
): Promise<void> {
  const { signal } = context
  if (options.to === '-' && options.json) {
    throw new Problem('usage', '--json and --to - both want standard output; use only one of them')
  }
  const source = await selectSource(client, options.source, signal)
  const checkpoint = await selectCheckpoint(client, source, options.checkpoint, signal)
  // What is needed later, while compiled code is believed.
  hashImplementations()
  posixAvailable()
  tuneForWork()
  const progress = createProgress({
    stream: context.stderr,
    isTTY: context.stderrIsTerminal,
    json: options.json ? context.emit : undefined,
  })
  try {
    if (options.to === '-') await toStandardOutput(client, checkpoint, options, context, progress)
    else await toDirectory(client, checkpoint, options, context, progress)
  } finally {
    progress.stop()
  }
}

async function toStandardOutput(
  client: ReceiverClient | WebDavBackups,
  checkpoint: CheckpointState,
  { include }: RestoreCommandOptions,
  { stdout, signal }: CommandContext,
  progress: Progress,
): Promise<void> {
  const bytesTotal = checkpoint.root === undefined ? checkpoint.itemBytes : undefined
  try {
    await restoreStream({
      client,
      checkpoint,
      include,
      output: stdout,
      onProgress: (bytesDone) => progress.update({ filesDone: 0, filesTotal: 1, bytesDone, bytesTotal }),
      signal,
    })
  } catch (cause) {
    if (!isProblem(cause)) throw cause
    const { code, message, extensions } = cause
    const { detail } = withRemedy({ code, detail: message }, client)
    throw new Problem(code, detail, { cause, extensions })
  }
}

/** A file that was damaged on a WebDAV server: backups trust what is there, unless they are told not to. */
function withRemedy<P extends Pick<RestoreProblem, 'code' | 'detail'>>(
  problem: P,
  client: ReceiverClient | WebDavBackups,
): P {
  if (!(client instanceof WebDavBackups) || problem.code !== 'digest-mismatch') return problem
  const remedy =
    'restore it from another checkpoint; to replace it there, back up again with --verify-content'
  return { ...problem, detail: `${problem.detail}; ${remedy}` }
}

async function toDirectory(
  client: ReceiverClient | WebDavBackups,
  checkpoint: CheckpointState,
  options: RestoreCommandOptions,
  context: CommandContext,
  progress: Progress,
): Promise<void> {
  const totals = options.include.length === 0 ? checkpoint.totals : undefined
  const to = resolve(context.workingFolder, options.to)
  const summary = await restore({
    client,
    checkpoint,
    to,
    include: options.include,
    overwrite: options.overwrite,
    onProgress: (counts, bytesDone) =>
      progress.update({
        filesDone: counts.files + counts.filesKept,
        filesTotal: totals?.files,
        bytesDone,
        bytesTotal: totals?.bytes,
      }),
    onProblem: (problem) => tellProblem(withRemedy(problem, client), options, context),
    signal: context.signal,
  })
  progress.stop()
  tell(summary, to, client.counters.bytesReceived, options, context)
  if (summary.problems > 0) context.exitWith(1)
}

function tell(
  summary: RestoreSummary,
  to: string,
  bytesReceived: number,
  { json }: RestoreCommandOptions,
  context: CommandContext,
): void {
  const { problemList: _, durationMs, source, checkpoint, ...counts } = summary
  if (json) {
    const durationSeconds = Math.round(durationMs) / 1000
    context.emit({ type: 'summary', source, checkpoint, to, ...counts, bytesReceived, durationSeconds })
    return
  }
  const parts = [
    plural(counts.files, 'file'),
    counts.filesKept > 0 ? `${plural(counts.filesKept, 'file')} there already` : '',
    counts.directories > 0 ? plural(counts.directories, 'directory', 'directories') : '',
    counts.symlinks > 0 ? plural(counts.symlinks, 'symlink') : '',
    counts.hardLinks > 0 ? plural(counts.hardLinks, 'hard link') : '',
    counts.specials > 0 ? plural(counts.specials, 'fifo or device', 'fifos or devices') : '',
    counts.skipped > 0 ? `${plural(counts.skipped, 'socket or device', 'sockets or devices')} skipped` : '',
  ]
  const whole = counts.problems === 0
  const missed = `${plural(counts.problems, 'path')} could not be restored`
  const outcome = whole ? `restored to ${to}` : `restored in part to ${to}: ${missed}`
  context.say(`Checkpoint ${checkpoint} of ${source} is ${outcome}.`)
  context.say(`  ${parts.filter((part) => part !== '').join(', ')}`)
  context.say(
    `  ${prettyBytes(counts.bytes)} in all, ${prettyBytes(bytesReceived)} received, ${duration(durationMs / 1000)}`,
  )
  if (!whole)
    context.warn(`${plural(counts.problems, 'path')} could not be restored rightly; each is listed above`)
}
