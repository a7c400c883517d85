/** `chunkdav prune URL` */
import type { Command } from 'commander'
import { isProblem } from '../../protocol/problem.ts'
import type { PruneAnswer } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { noBackupOf } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import { describeRetention } from './policy.ts'
import { receiverArgument, shownTime, withReceiver } from './receiver-command.ts'
import { grouped, plural } from './report.ts'
import { jsonOption } from './vault-command.ts'

interface PruneOptions {
  readonly source?: string
  readonly dryRun: boolean
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav prune http://127.0.0.1:8420/home --dry-run
  chunkdav prune http://127.0.0.1:8420/home --source laptop

What is kept is said by chunkdav policy. The receiver prunes by itself every hour; this does it now, or tells what it
would do. The newest backup of each source always stays, and so do pinned ones (chunkdav pin). The space that was taken
by removed backups alone is freed by the receiver's next garbage collection.`

/** Adds `prune` to the program. */
export function registerPrune(program: Command, context: CommandContext): void {
  program
    .command('prune')
    .description('Remove the backups that the retention policy of a vault does not keep')
    .argument(...receiverArgument)
    .option('--source <name>', 'only those of this source')
    .option('-n, --dry-run', 'tell what would be removed, and remove nothing', false)
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: PruneOptions) => prune(url, options, context))
}

async function prune(
  url: string,
  { source, dryRun, json }: PruneOptions,
  context: CommandContext,
): Promise<void> {
  const only = source === undefined ? {} : { source: parseSourceName(source) }
  await withReceiver(url, context, async (client) => {
    const { signal } = context
    const answer = await client.prune({ dryRun, ...only }, { signal }).catch(async (error: unknown) => {
      if (source === undefined || !isProblem(error, 'checkpoint-not-found')) throw error
      throw await noBackupOf(source, client, signal)
    })
    if (json) tellJson(answer, context)
    else tell(answer, client.location.withUser, context)
  })
}

function tellJson({ sources, ...counts }: PruneAnswer, context: CommandContext): void {
  for (const { source, kept, removed } of sources) {
    const rows = [
      ...kept.map((row) => ({ ...row, kept: true })),
      ...removed.map((row) => ({ ...row, kept: false, reasons: [] })),
    ]
    rows.sort((a, b) => a.number - b.number)
    for (const row of rows) context.emit({ type: 'checkpoint', source, ...row })
  }
  context.emit({ type: 'summary', ...counts })
}

function tell({ dryRun, kept, removed, sources }: PruneAnswer, url: string, context: CommandContext): void {
  for (const source of sources) {
    context.say(`${source.source} keeps ${describeRetention(source.retention)}.`)
    // Where nothing can go there is nothing to explain.
    if (source.retention === 'keep-all') continue
    const rows = [
      ...source.kept.map((row) => ({ ...row, text: `keep    ${row.reasons.join(', ')}` })),
      ...source.removed.map((row) => ({ ...row, text: dryRun ? 'would be removed' : 'removed' })),
    ]
    rows.sort((a, b) => a.number - b.number)
    const width = String(rows.at(-1)?.number ?? '').length
    for (const { number, committedAt, text } of rows) {
      context.say(`  ${String(number).padStart(width)}  ${shownTime(committedAt)}  ${text}`)
    }
  }
  if (sources.every(({ retention }) => retention === 'keep-all')) {
    context.say(`Everything is kept. Set what is: ${context.program} policy ${url} --keep-daily 7 …`)
    return
  }
  const what = `${plural(removed, 'backup')} ${dryRun ? 'would be removed' : 'removed'}, ${grouped(kept)} kept`
  context.say(`${what}${dryRun ? '. Nothing was changed' : ''}.`)
}
