/** `chunkdav freeze URL` */
import type { Command } from 'commander'
import prettyBytes from 'pretty-bytes'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { CheckpointState } from '../../protocol/schema.ts'
import { parseSourceName, paths } from '../../protocol/url.ts'
import { parseTreeUrl, type TreeLocation } from '../tree-url.ts'
import type { CommandContext } from './context.ts'
import { plural } from './report.ts'
import { receiverUrl, shownPath, withTree } from './tree-command.ts'
import { jsonOption, passwordHelp, passwordHint } from './vault-command.ts'

interface FreezeOptions {
  readonly source?: string
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav freeze http://127.0.0.1:8420/home/tree
  chunkdav freeze http://127.0.0.1:8420/home/tree/documents --source documents

The checkpoint never changes, whatever is written to the tree later, and costs what has changed since the last one.
The receiver does it by itself when it is told to: see chunkdav serve --help.`

/** Adds `freeze` to the program. */
export function registerFreeze(program: Command, context: CommandContext): void {
  program
    .command('freeze')
    .description('Make a checkpoint of a live tree, or of a folder in it')
    .argument('<url>', `the tree: http://[USER@]HOST:PORT/VAULT/tree, or a folder below; ${passwordHelp}`)
    .option('--source <name>', 'what it is filed under (default: tree, or tree-a-b for tree/a/b)')
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: FreezeOptions) => freeze(url, options, context))
}

async function freeze(url: string, options: FreezeOptions, context: CommandContext): Promise<void> {
  const place = parseTreeUrl(receiverUrl(url), context.login)
  const source = options.source === undefined ? undefined : parseSourceName(options.source)
  const state = await withTree(place.vault, async (client) => {
    try {
      return await client.freeze(place.names, { source, signal: context.signal })
    } catch (cause) {
      throw refusal(cause, place)
    }
  })
  tell(state, place, options, context)
}

function refusal(cause: unknown, { vault, names }: TreeLocation): unknown {
  const folder = shownPath(names)
  if (isProblem(cause, 'not-found')) {
    return new Problem('not-found', `there is no folder "${folder}" in ${vault.shown}/tree`, { cause })
  }
  if (isProblem(cause, 'method-not-allowed')) {
    return new Problem('usage', `"${folder}" is a file; freeze the folder that it is in`, { cause })
  }
  return cause
}

function tell(
  state: CheckpointState,
  { vault }: TreeLocation,
  { json }: FreezeOptions,
  context: CommandContext,
): void {
  const { source, number, root, totals } = state
  if (json) {
    context.emit({ type: 'summary', source, checkpoint: number, root, ...totals })
    return
  }
  context.say(`Checkpoint ${number} of ${source} is committed.`)
  if (totals !== undefined) {
    const { files, directories, bytes } = totals
    const counts = `${plural(files, 'file')}, ${plural(directories, 'directory', 'directories')}`
    context.say(`  ${counts}, ${prettyBytes(bytes)}`)
  }
  context.say(`Look at it in ${vault.origin}${paths.snapshot(vault.vault, source, number)}`)
  context.say(`Restore it with: ${context.program} restore ${vault.withUser} --source ${source} --to DIR`)
  passwordHint(vault, context)
}
