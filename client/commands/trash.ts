/** `chunkdav trash list|restore|remove URL` */
import { isUtf8 } from 'node:buffer'
import { type Command, InvalidArgumentError } from 'commander'
import prettyBytes from 'pretty-bytes'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { TrashItem } from '../../protocol/schema.ts'
import type { TreeClient, TreeNames } from '../tree-client.ts'
import { decodePath, namesOf } from '../tree-url.ts'
import { parseVaultUrl } from '../vault-url.ts'
import type { CommandContext } from './context.ts'
import { parsePath, plural } from './report.ts'
import { receiverUrl, shownPath, withTree } from './tree-command.ts'
import { jsonOption, notEmpty, passwordHelp } from './vault-command.ts'

const examples = `
Examples:
  chunkdav trash list http://127.0.0.1:8420/home
  chunkdav trash restore http://127.0.0.1:8420/home 42 43 44
  chunkdav trash restore http://127.0.0.1:8420/home 42 --to documents/report-of-yesterday.pdf
  chunkdav trash remove http://127.0.0.1:8420/home 42

What was deleted from the live tree, or overwritten in it, is kept for as long as the receiver was told to
(chunkdav serve --keep-trash), 30 days unless told otherwise.`

const restoreExamples = `
Examples:
  chunkdav trash restore http://127.0.0.1:8420/home 42 43 44
  chunkdav trash restore http://127.0.0.1:8420/home 42 --to old/

Of several items, the one that was deleted last is restored first: a folder is back before what had been deleted
out of it. Exit codes: 0 all done, 1 something could not be (each item is told), 2 wrong usage.`

const removeExamples = `
Example:
  chunkdav trash remove http://127.0.0.1:8420/home 42 43 44`

const vaultArgument = ['<url>', `the vault: http://[USER@]HOST:PORT/VAULT; ${passwordHelp}`] as const
const itemsArgument = ['<item...>', 'their numbers, as chunkdav trash list tells them', collectItem] as const

/** What one item fails with and the others would fail with, too. Everything else ends nothing. */
const fatalCodes: readonly ProblemCode[] = [
  'cancelled',
  'forbidden',
  'protocol-violation',
  'transport-failed',
  'unavailable',
  'usage',
  'vault-not-found',
]

interface RestoreOptions {
  readonly to?: string
  readonly json: boolean
}

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
    .description('Put things back where they were, or elsewhere; nothing is overwritten')
    .argument(...vaultArgument)
    .argument(...itemsArgument)
    .option('--to <path>', 'where to put it in the tree; a path that ends in / is a folder', notEmpty)
    .option(...jsonOption, false)
    .addHelpText('after', restoreExamples)
    .action((url: string, items: number[], options: RestoreOptions) => restore(url, items, options, context))
  trash
    .command('remove')
    .description('Remove things from the trash for good')
    .argument(...vaultArgument)
    .argument(...itemsArgument)
    .option(...jsonOption, false)
    .addHelpText('after', removeExamples)
    .action((url: string, items: number[], options: { json: boolean }) =>
      remove(url, items, options, context),
    )
}

function collectItem(text: string, before: readonly number[] = []): readonly number[] {
  const number = /^[1-9][0-9]{0,14}$/.test(text) ? Number(text) : undefined
  if (number === undefined) throw new InvalidArgumentError('It must be the number of an item.')
  return before.includes(number) ? before : [...before, number]
}

async function list(url: string, { json }: { json: boolean }, context: CommandContext): Promise<void> {
  await withTree(parseVaultUrl(receiverUrl(url), context.login), async (client) => {
    const items = await client.trash({ signal: context.signal })
    for (const item of items) {
      if (json) context.emit({ type: 'entry', ...asJson(item) })
      else context.say(line(item))
    }
    if (json) context.emit({ type: 'summary', items: items.length })
    else if (items.length === 0) context.say(`The trash of ${client.location.shown} is empty.`)
  })
}

function asJson({ path, ...rest }: TrashItem): Record<string, unknown> {
  return { ...pathAsJson(decodePath(path)), ...rest }
}

/** A path for scripts. `path64` is there when it is not UTF-8. */
function pathAsJson(names: TreeNames): Record<string, unknown> {
  const isText = names.every((name) => isUtf8(name))
  const bytes = Buffer.from(names.map((name) => name.toString('latin1')).join('/'), 'latin1')
  return { path: shownPath(names), ...(isText ? {} : { path64: bytes.toString('base64') }) }
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
  numbers: readonly number[],
  { to, json }: RestoreOptions,
  context: CommandContext,
): Promise<void> {
  if (to !== undefined && numbers.length > 1 && !to.endsWith('/')) {
    throw new Problem('usage', `several items need a folder to be put into; write --to ${to}/`)
  }
  await withTree(parseVaultUrl(receiverUrl(url), context.login), async (client) => {
    const { signal } = context
    // The oldest comes first, so that the order of the work is the other way round.
    const listed = (await client.trash({ signal })).reverse()
    const items = new Map(listed.map((item) => [item.item, item]))
    const known = listed.map(({ item }) => item).filter((item) => numbers.includes(item))
    const unknown = numbers.filter((number) => !items.has(number))
    const restored = await forEach([...known, ...unknown], { json }, context, async (number) => {
      const names = decodePath(items.get(number)?.path ?? '')
      const name = names.at(-1)
      if (name === undefined) throw notInTrash(number, client)
      const place = to === undefined ? names : placeOf(to, name)
      try {
        await moveTo(client, number, name, place, signal)
      } catch (cause) {
        throw refusal(cause, number, place, client)
      }
      if (json) context.emit({ type: 'entry', item: number, ...pathAsJson(names), to: shownPath(place) })
      else context.say(`${shownPath(names)} is restored${to === undefined ? '' : ` to ${shownPath(place)}`}.`)
    })
    if (json) context.emit({ type: 'summary', restored, problems: numbers.length - restored })
  })
}

/** Does `work` for one item after the other, tells those that it failed for, and returns for how many it was done. */
async function forEach(
  numbers: readonly number[],
  { json }: { json: boolean },
  context: CommandContext,
  work: (number: number) => Promise<void>,
): Promise<number> {
  let done = 0
  for (const number of numbers) {
    try {
      await work(number)
      done++
    } catch (error) {
      if (!isProblem(error) || fatalCodes.includes(error.code)) throw error
      const { code, message: detail } = error
      if (json) context.emit({ type: 'problem', item: number, code, detail })
      else context.warn(detail)
    }
  }
  if (done === numbers.length) return done
  context.exitWith(1)
  if (!json && numbers.length > 1)
    context.warn(`${plural(numbers.length - done, 'item')} of ${numbers.length} failed`)
  return done
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
  if (!isProblem(cause) || fatalCodes.includes(cause.code)) return cause
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
  return again(`item ${item}: ${cause.message}`)
}

function notInTrash(item: number, { location }: TreeClient, cause?: unknown): Problem {
  const text = `item ${item} is not in the trash; see: chunkdav trash list ${location.withUser}`
  return new Problem('not-found', text, { cause })
}

async function remove(
  url: string,
  numbers: readonly number[],
  { json }: { json: boolean },
  context: CommandContext,
): Promise<void> {
  await withTree(parseVaultUrl(receiverUrl(url), context.login), async (client) => {
    const removed = await forEach(numbers, { json }, context, async (number) => {
      if (!(await client.purge(number, { signal: context.signal }))) throw notInTrash(number, client)
      if (json) context.emit({ type: 'entry', item: number })
      else context.say(`Item ${number} is removed for good.`)
    })
    if (json) context.emit({ type: 'summary', removed, problems: numbers.length - removed })
  })
}
