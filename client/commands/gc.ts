/** `chunkdav gc URL` */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import prettyBytes from 'pretty-bytes'
import { Problem } from '../../protocol/problem.ts'
import type { CollectionState } from '../../protocol/schema.ts'
import { createProgress, duration, type Progress } from '../progress.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import { cancelledBy } from '../transport-problem.ts'
import type { CommandContext } from './context.ts'
import { receiverArgument, shownTime, withReceiver } from './receiver-command.ts'
import { plural } from './report.ts'
import { jsonProgressOption } from './vault-command.ts'

interface GcOptions {
  readonly dryRun: boolean
  readonly minGarbage?: number
  readonly stop: boolean
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav gc http://127.0.0.1:8420/home
  chunkdav gc --dry-run http://127.0.0.1:8420/home
  chunkdav gc --min-garbage 0% http://127.0.0.1:8420/home

The receiver does this by itself every night, and soon after something was removed. Backups and restores go on
meanwhile. Content that no backup and nothing in the live tree or its trash refers to is garbage; it is given back where
it is a good part of a pack (20 %), and one pack more each time, so that none keeps it for ever. It goes on when this
command is stopped; --stop stops it.
Exit codes: 0 done, 1 it failed or was stopped, 2 wrong usage.`

/** Adds `gc` to the program. */
export function registerGc(program: Command, context: CommandContext): void {
  program
    .command('gc')
    .description('Give back the space of what no backup needs any more')
    .argument(...receiverArgument)
    .option('--dry-run', 'only tell how much that is', false)
    .option(
      '--min-garbage <percent>',
      'rewrite packs of which so much is garbage (default: 20%)',
      parsePercent,
    )
    .option('--stop', 'stop the collection that runs', false)
    .option(...jsonProgressOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: GcOptions) => gc(url, options, context))
}

function parsePercent(text: string): number {
  const share = Number(/^(\d{1,3}(?:\.\d{1,3})?)%$/.exec(text)?.[1]) / 100
  if (share >= 0 && share <= 1) return share
  throw new InvalidArgumentError('It must be a percentage, such as 10%.')
}

async function gc(url: string, options: GcOptions, context: CommandContext): Promise<void> {
  if (options.stop && (options.dryRun || options.minGarbage !== undefined)) {
    throw new Problem('usage', '--stop goes with no other option')
  }
  await withReceiver(url, context, async (client) => {
    if (options.stop) return await stop(client, options, context)
    const progress = createProgress({
      stream: context.stderr,
      isTTY: context.stderrIsTerminal,
      json: options.json ? context.emit : undefined,
    })
    try {
      tell(client, await untilEnded(client, options, context.signal, progress), options, context)
    } finally {
      progress.stop()
    }
  })
}

async function stop(client: ReceiverClient, { json }: GcOptions, context: CommandContext): Promise<void> {
  await client.stopCollection({ signal: context.signal })
  if (json) context.emit({ type: 'summary', stopped: true })
  else context.say('No collection runs any more.')
}

const pollMs = 300

/** Begins, follows it, and returns the state in which it ended. */
async function untilEnded(
  client: ReceiverClient,
  { dryRun, minGarbage }: GcOptions,
  signal: AbortSignal,
  progress: Progress,
): Promise<CollectionState> {
  const request = { ...(dryRun && { dryRun }), ...(minGarbage !== undefined && { minGarbage }) }
  let state = await client.startCollection(request, { signal })
  const startedAt = state.running?.startedAt
  while (state.running !== undefined && state.running.startedAt === startedAt) {
    const { phase, objects, packs, packsDone } = state.running.progress
    if (phase === 'mark') progress.update({ filesDone: objects, bytesDone: 0, unit: 'list' })
    else progress.update({ filesDone: packsDone, filesTotal: packs, bytesDone: 0, unit: 'pack' })
    try {
      await sleep(pollMs, undefined, { signal })
    } catch (error) {
      if (error instanceof Error && error.name === 'AbortError') throw cancelledBy(signal)
      throw error
    }
    state = await client.collectionState({ signal })
  }
  return state
}

function tell(
  client: ReceiverClient,
  { last, nextAt }: CollectionState,
  { json }: GcOptions,
  context: CommandContext,
): void {
  if (last === undefined) throw new Problem('unavailable', 'the receiver does not tell how it ended')
  const { outcome, detail, report } = last
  if (outcome === 'failed')
    throw new Problem('unavailable', `garbage could not be collected: ${detail ?? ''}`)
  if (outcome === 'stopped') throw new Problem('unavailable', 'the collection was stopped; begin it again')
  const durationSeconds = (Date.parse(last.finishedAt) - Date.parse(last.startedAt)) / 1000
  if (json) {
    context.emit({ type: 'summary', ...report, durationSeconds, ...(nextAt && { nextAt }) })
    return
  }
  const { dryRun, dueBytes, freedBytes, garbageBytes, storedBytes, checkpoints, objects, packs } = report
  const walked = `${plural(checkpoints, 'backup')}, ${plural(objects, 'list')}, ${duration(durationSeconds)}`
  if (dryRun) {
    context.say(
      `${client.location.shown} stores ${prettyBytes(storedBytes)}; about ${prettyBytes(garbageBytes)} of that is garbage.`,
    )
    context.say(`  ${walked}`)
    context.say(
      `  A collection now gives back about ${prettyBytes(dueBytes)}: chunkdav gc ${client.location.shown}`,
    )
  } else {
    context.say(
      `Gave back ${prettyBytes(Math.max(0, freedBytes))}; ${client.location.shown} stores ${prettyBytes(storedBytes)} now.`,
    )
    context.say(`  ${walked}; ${plural(packs, 'pack')} rewritten or removed`)
    if (garbageBytes > 0)
      context.say(`  About ${prettyBytes(garbageBytes)} more will go with one of the next collections.`)
  }
  if (nextAt !== undefined) context.say(`  The next one by itself: ${shownTime(nextAt)}`)
}
