/** `chunkdav checkpoints URL` */
import type { Command } from 'commander'
import prettyBytes from 'pretty-bytes'
import type { CheckpointState } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import { noBackupOf } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import { grouped } from './report.ts'
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
    const rows: Row[] = []
    let count = 0
    for (const name of sources) {
      for (const checkpoint of await client.listCheckpoints(name, { signal })) {
        count++
        if (json) context.emit({ type: 'checkpoint', ...checkpoint })
        else rows.push(row(checkpoint))
      }
    }
    if (rows.length > 0) sayTable([header, ...rows], context)
    if (source !== undefined && count === 0) throw await noBackupOf(source, client, signal)
    if (json) context.emit({ type: 'summary', sources: sources.length, checkpoints: count })
    else if (count === 0) context.say(`There are no backups in ${client.location.shown} yet.`)
  })
}

type Row = readonly [source: string, number: string, time: string, files: string, size: string, about: string]
const header: Row = ['SOURCE', 'N', 'TIME', 'FILES', 'SIZE', 'WHAT']
/** Numbers stand below each other. */
const rightAligned: ReadonlySet<number> = new Set([1, 3, 4])

function row(checkpoint: CheckpointState): Row {
  const { source, number, state, openedAt, committedAt, totals, itemBytes, root, pinned, about } = checkpoint
  const time = (committedAt ?? openedAt).replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC')
  const bytes = totals?.bytes ?? (root === undefined ? itemBytes : undefined)
  const notes = [
    state === 'open' ? 'not finished' : '',
    pinned === true ? 'pinned' : '',
    about?.path ?? about?.paths ?? '',
  ]
  return [
    source,
    String(number),
    time,
    totals === undefined ? '' : grouped(totals.files),
    bytes === undefined ? '' : prettyBytes(bytes),
    notes.filter((note) => note !== '').join('  '),
  ]
}

function sayTable(rows: readonly Row[], { say }: CommandContext): void {
  const widths = header.map((_, column) =>
    rows.reduce((width, row) => Math.max(width, (row[column] as string).length), 0),
  )
  for (const row of rows) {
    const cells = row.map((cell, column) => {
      const width = widths[column] as number
      return rightAligned.has(column) ? cell.padStart(width) : cell.padEnd(width)
    })
    say(cells.join('  ').trimEnd())
  }
}
