/** `chunkdav checkpoints URL` */
import type { Command } from 'commander'
import prettyBytes from 'pretty-bytes'
import type { CheckpointState } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { noBackupOf } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import { plural } from './report.ts'
import { jsonOption, vaultArgument, withVault } from './vault-command.ts'

const examples = `
Examples:
  chunkdav checkpoints http://127.0.0.1:8420/home
  chunkdav checkpoints http://127.0.0.1:8420/home --source laptop --json`

/** Adds `checkpoints` to the program. */
export function registerCheckpoints(program: Command, context: CommandContext): void {
  program
    .command('checkpoints')
    .description('List the backups in a vault')
    .argument(...vaultArgument)
    .option('--source <name>', 'only those of this source')
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: { source?: string; json: boolean }) => list(url, options, context))
}

async function list(
  url: string,
  { source, json }: { source?: string; json: boolean },
  context: CommandContext,
): Promise<void> {
  await withVault(url, context, async (client) => {
    const { signal } = context
    const sources = source === undefined ? await client.sources({ signal }) : [parseSourceName(source)]
    let count = 0
    for (const name of sources) {
      for (const checkpoint of await client.listCheckpoints(name, { signal })) {
        count++
        if (json) context.emit({ type: 'checkpoint', ...checkpoint })
        else context.say(line(checkpoint))
      }
    }
    if (source !== undefined && count === 0) throw await noBackupOf(source, client, signal)
    if (json) context.emit({ type: 'summary', sources: sources.length, checkpoints: count })
    else if (count === 0) context.say(`There are no backups in ${client.location.shown} yet.`)
  })
}

function line(checkpoint: CheckpointState): string {
  const { source, number, state, openedAt, committedAt, totals, itemBytes, root, pinned } = checkpoint
  const time = (committedAt ?? openedAt).replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC')
  const bytes = totals?.bytes ?? (root === undefined ? itemBytes : undefined)
  const parts = [
    `${source}  ${number}`,
    time,
    state === 'open' ? 'not finished' : '',
    pinned === true ? 'pinned' : '',
    totals === undefined ? '' : plural(totals.files, 'file'),
    bytes === undefined ? '' : prettyBytes(bytes),
    checkpoint.about?.path ?? checkpoint.about?.paths ?? '',
  ]
  return parts.filter((part) => part !== '').join('  ')
}
