/** `chunkdav trash list|restore|remove URL` */
import { isUtf8 } from 'node:buffer'
import { type Command, InvalidArgumentError } from 'commander'
import prettyBytes from 'pretty-bytes'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { TrashItem } from '../../protocol/schema.ts'
import type { TreeClient, TreeNames } from '../tree-client.ts'
import { decodePath, namesOf } from '../tree-url.ts'
import { parseVaultUrl } from '../vault-url.ts'
import type { CommandContext } from './context.ts'
import { parsePath } from './report.ts'
import { shownPath, withTree } from './tree-command.ts'
import { jsonOption, notEmpty } from './vault-command.ts'

const examples = `
Examples:
  chunkdav trash list http://127.0.0.1:8420/home
  chunkdav trash restore http://127.0.0.1:8420/home 42
  chunkdav trash restore http://127.0.0.1:8420/home 42 --to documents/report-of-yesterday.pdf
  chunkdav trash remove http://127.0.0.1:8420/home 42

What was deleted from the live tree, or overwritten in it, is kept for as long as the receiver was told to
(chunkdav serve --keep-trash), 30 days unless told otherwise.`

const vaultArgument = ['<url>', 'the vault: http://HOST:PORT/VAULT'] as const
const itemArgument = ['<item>', 'its number, as chunkdav trash list tells it', parseItem] as const

/** Adds `trash` to the program. */
export function registerTrash(program: Command, context: CommandContext): void {
  const trash = program
    .command('trash')
    .description('List, restore or remove what was deleted or overwritten in a live tree')
    .addHelpText('after', examples)
  trash
    .command('list')
    .description('List what is in the trash')
    .argument(...vaultArgument)
    .option(...jsonOption, false)
    .addHelpText('after', '\nExample:\n  chunkdav trash list http://127.0.0.1:8420/home')
    .action((url: string, options: { json: boolean }) => list(url, options, context))
  trash
    .command('restore')
    .description('Put something back where it was, or elsewhere; nothing is overwritten')
    .argument(...vaultArgument)
    .argument(...itemArgument)
    .option('--to <path>', 'where to put it in the tree; a path that ends in / is a folder', notEmpty)
    .addHelpText('after', '\nExample:\n  chunkdav trash restore http://127.0.0.1:8420/home 42 --to old/')
    .action((url: string, item: number, options: { to?: string }) => restore(url, item, options, context))
  trash
    .command('remove')
    .description('Remove something from the trash for good')
    .argument(...vaultArgument)
    .argument(...itemArgument)
    .addHelpText('after', '\nExample:\n  chunkdav trash remove http://127.0.0.1:8420/home 42')
    .action((url: string, item: number) => remove(url, item, context))
}

function parseItem(text: string): number {
  const number = /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : undefined
  if (number === undefined) throw new InvalidArgumentError('It must be the number of an item.')
  return number
}

async function list(url: string, { json }: { json: boolean }, context: CommandContext): Promise<void> {
  await withTree(parseVaultUrl(url), async (client) => {
    const items = await client.trash({ signal: context.signal })
    for (const item of items) {
      if (json) context.emit({ type: 'entry', ...asJson(item) })
      else context.say(line(item))
    }
    if (json) context.emit({ type: 'summary', items: items.length })
    else if (items.length === 0) context.say(`The trash of ${client.location.shown} is empty.`)
  })
}

/** An item for scripts. `path64` is there when the path is not UTF-8. */
function asJson({ path: encoded, ...rest }: TrashItem): Record<string, unknown> {
  const names = decodePath(encoded)
  const isText = names.every((name) => isUtf8(name))
  const bytes = Buffer.from(names.map((name) => name.toString('latin1')).join('/'), 'latin1')
  return { path: shownPath(names), ...(isText ? {} : { path64: bytes.toString('base64') }), ...rest }
}

function line({ item, path, kind, size, deletedAt, reason }: TrashItem): string {
  return [
    String(item).padStart(6),
    deletedAt.replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC'),
    (size === undefined ? '-' : prettyBytes(size)).padStart(8),
    reason.padEnd('overwritten'.length),
    shownPath(decodePath(path)) + (kind === 'directory' ? '/' : ''),
  ].join('  ')
}

async function restore(
  url: string,
  number: number,
  { to }: { to?: string },
  context: CommandContext,
): Promise<void> {
  await withTree(parseVaultUrl(url), async (client) => {
    const { signal } = context
    const item = (await client.trash({ signal })).find((each) => each.item === number)
    if (item === undefined) throw notInTrash(number, client)
    const names = decodePath(item.path)
    const name = names.at(-1) as Buffer
    const place = to === undefined ? names : placeOf(to, name)
    try {
      await moveTo(client, number, name, place, signal)
    } catch (cause) {
      throw refusal(cause, number, place, client)
    }
    context.say(`${shownPath(names)} is restored${to === undefined ? '' : ` to ${shownPath(place)}`}.`)
  })
}

/** What `--to` means for something of this name. */
function placeOf(to: string, name: Buffer): Buffer[] {
  const names = namesOf(parsePath(to))
  return to.endsWith('/') || names.length === 0 ? [...names, name] : names
}

/** Collections that are missing on the way there are made. */
async function moveTo(
  client: TreeClient,
  item: number,
  name: Buffer,
  place: TreeNames,
  signal: AbortSignal,
): Promise<void> {
  try {
    await client.restore(item, name, place, { signal })
  } catch (error) {
    if (!isProblem(error, 'conflict') || place.length === 1) throw error
    for (let length = 1; length < place.length; length++) {
      await client.makeCollection(place.slice(0, length), { signal })
    }
    await client.restore(item, name, place, { signal })
  }
}

function refusal(cause: unknown, item: number, place: TreeNames, client: TreeClient): unknown {
  if (!isProblem(cause)) return cause
  const shown = shownPath(place)
  const again = (text: string): Problem => new Problem(cause.code, text, { cause })
  if (cause.code === 'not-found') return notInTrash(item, client, cause)
  if (cause.code === 'precondition-failed') {
    return again(`there is something at "${shown}" already; move it away, or add --to with another path`)
  }
  if (cause.code === 'conflict') {
    return again(`there is a file where a folder of "${shown}" would be; add --to with another path`)
  }
  if (cause.code === 'locked') return again(`somebody has locked "${shown}"; try again later, or add --to`)
  return cause
}

function notInTrash(item: number, { location }: TreeClient, cause?: unknown): Problem {
  const text = `item ${item} is not in the trash; see: chunkdav trash list ${location.shown}`
  return new Problem('not-found', text, { cause })
}

async function remove(url: string, item: number, context: CommandContext): Promise<void> {
  await withTree(parseVaultUrl(url), async (client) => {
    if (!(await client.purge(item, { signal: context.signal }))) throw notInTrash(item, client)
    context.say(`Item ${item} is removed for good.`)
  })
}
