/** `chunkdav ls URL [PATH]` */
import { isUtf8 } from 'node:buffer'
import type { Command } from 'commander'
import { targetBytes } from '../../protocol/objects.ts'
import type { Entry } from '../../protocol/schema.ts'
import { type FoundEntry, listPath } from '../browse.ts'
import { openContent } from '../restore/open-content.ts'
import { selectCheckpoint, selectSource } from '../select-checkpoint.ts'
import type { CommandContext } from './context.ts'
import { parsePath, showPath } from './report.ts'
import {
  jsonOption,
  parseCheckpointOption,
  rootOf,
  sourceOption,
  vaultArgument,
  withVault,
} from './vault-command.ts'

interface LsOptions {
  readonly source?: string
  readonly checkpoint: number | 'latest'
  readonly long: boolean
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav ls http://127.0.0.1:8420/home
  chunkdav ls http://127.0.0.1:8420/home docs/2024 -l --checkpoint 12

Bytes of a name that are not UTF-8, and control characters, are shown and taken as \\xNN.`

/** Adds `ls` to the program. */
export function registerLs(program: Command, context: CommandContext): void {
  program
    .command('ls')
    .description('List what a backup holds')
    .argument(...vaultArgument)
    .argument('[path]', 'a path in the backup', '')
    .option(...sourceOption)
    .option('--checkpoint <n>', 'which one: its number, or latest', parseCheckpointOption, 'latest')
    .option('-l, --long', 'modes, owners, sizes and times too', false)
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, path: string, options: LsOptions) => list(url, path, options, context))
}

async function list(url: string, path: string, options: LsOptions, context: CommandContext): Promise<void> {
  await withVault(url, context, async (client) => {
    const { signal } = context
    const source = await selectSource(client, options.source, signal)
    const checkpoint = await selectCheckpoint(client, source, options.checkpoint, signal)
    let entries = 0
    const content = await openContent(client, checkpoint, signal)
    try {
      for await (const found of listPath(content, rootOf(checkpoint), parsePath(path))) {
        entries++
        if (options.json) context.emit({ type: 'entry', ...asJson(found) })
        else context.say(options.long ? longLine(found) : shownName(found))
      }
    } finally {
      await content.close()
    }
    if (options.json) context.emit({ type: 'summary', source, checkpoint: checkpoint.number, entries })
  })
}

/** An entry for scripts. `path64` is there when the path is not UTF-8. */
export function asJson({ path, entry }: FoundEntry): Record<string, unknown> {
  const { name: _, name64: __, target: ___, target64: ____, ...rest } = { target: '', target64: '', ...entry }
  return {
    path: showPath(path),
    ...(isUtf8(path) ? {} : { path64: path.toString('base64') }),
    ...rest,
    ...(entry.kind === 'symlink' ? { target: showPath(targetBytes(entry)) } : {}),
  }
}

function shownName({ path, entry }: FoundEntry): string {
  const name = path.subarray(path.lastIndexOf(0x2f) + 1)
  return showPath(name) + (entry.kind === 'directory' ? '/' : '')
}

const kindLetters: Record<Entry['kind'], string> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  fifo: 'p',
  socket: 's',
  'character-device': 'c',
  'block-device': 'b',
}

function longLine(found: FoundEntry): string {
  const { entry } = found
  const size =
    'major' in entry ? `${entry.major}, ${entry.minor}` : String(entry.kind === 'file' ? entry.size : 0)
  const milliseconds = Number(BigInt(entry.mtimeNs) / 1_000_000n)
  const date = new Date(milliseconds)
  const time = Number.isNaN(date.getTime())
    ? entry.mtimeNs
    : date.toISOString().slice(0, 19).replace('T', ' ')
  const target = entry.kind === 'symlink' ? ` -> ${showPath(targetBytes(entry))}` : ''
  return [
    kindLetters[entry.kind] + modeLetters(entry.mode),
    String(entry.uid).padStart(5),
    String(entry.gid).padStart(5),
    size.padStart(12),
    time,
    shownName(found) + target,
  ].join(' ')
}

/** Permission bits as `ls` writes them: rwsr-xr-t. */
export function modeLetters(mode: number): string {
  const special = [0o4000, 0o2000, 0o1000]
  return [6, 3, 0]
    .map((shift, index) => {
      const bits = (mode >> shift) & 7
      const mark = index === 2 ? 't' : 's'
      const execute = (bits & 1) !== 0
      const last =
        (mode & (special[index] as number)) === 0
          ? execute
            ? 'x'
            : '-'
          : execute
            ? mark
            : mark.toUpperCase()
      return (bits & 4 ? 'r' : '-') + (bits & 2 ? 'w' : '-') + last
    })
    .join('')
}
