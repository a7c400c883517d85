/** `chunkdav diff URL A B` */
import type { Command } from 'commander'
import { type Change, diffTrees } from '../browse.ts'
import { openContent } from '../restore/open-content.ts'
import { selectCheckpoint, selectSource } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import { showPath } from './report.ts'
import {
  jsonOption,
  parseCheckpointOption,
  rootOf,
  sourceOption,
  vaultArgument,
  withVault,
} from './vault-command.ts'

interface DiffOptions {
  readonly source?: string
  readonly json: boolean
}

type Which = number | 'latest'

const signs = { added: '+', removed: '-', changed: 'M' } as const

const examples = `
Examples:
  chunkdav diff http://127.0.0.1:8420/home 11 12
  chunkdav diff http://127.0.0.1:8420/home 11 latest

A line says what B has and A has not (+), the other way round (-), or what is different (M).`

/** Adds `diff` to the program. */
export function registerDiff(program: Command, context: CommandContext): void {
  program
    .command('diff')
    .description('Tell what differs between two backups of a source')
    .argument(...vaultArgument)
    .argument('<a>', 'a checkpoint: its number, or latest', parseCheckpointOption)
    .argument('<b>', 'another one', parseCheckpointOption)
    .option(...sourceOption)
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, a: Which, b: Which, options: DiffOptions) => diff(url, a, b, options, context))
}

async function diff(
  url: string,
  a: Which,
  b: Which,
  options: DiffOptions,
  context: CommandContext,
): Promise<void> {
  await withVault(url, context, async (client) => {
    const { signal } = context
    const source = await selectSource(client, options.source, signal)
    const before = await selectCheckpoint(client, source, a, signal)
    const after = await selectCheckpoint(client, source, b, signal)
    const counts = { added: 0, removed: 0, changed: 0 }
    const trees = [
      await openContent(client, before, signal),
      await openContent(client, after, signal),
    ] as const
    try {
      for await (const change of diffTrees(trees, rootOf(before), rootOf(after))) {
        counts[change.change]++
        if (options.json) context.emit({ type: 'change', ...asJson(change) })
        else context.say(`${signs[change.change]} ${shown(change)}`)
      }
    } finally {
      for (const tree of trees) await tree.close()
    }
    const { number: from } = before
    const { number: to } = after
    if (options.json) context.emit({ type: 'summary', source, from, to, ...counts })
    else if (counts.added + counts.removed + counts.changed === 0) {
      // Not where a script counts lines.
      context.warn(`no difference between checkpoints ${from} and ${to} of ${source}`)
    }
  })
}

function shown({ path, before, after }: Change): string {
  return showPath(path) + ((after ?? before)?.kind === 'directory' ? '/' : '')
}

function asJson({ change, path, before, after }: Change): Record<string, unknown> {
  return { change, path: showPath(path), kind: (after ?? before)?.kind }
}
