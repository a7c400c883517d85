/** `chunkdav policy URL` */
import { type Command, InvalidArgumentError } from 'commander'
import { isProblem, Problem } from '../../protocol/problem.ts'
import type { RetentionPolicy, VaultSettings } from '../../protocol/schema.ts'
import { parseSourceName } from '../../protocol/url.ts'
import type { ReceiverClient } from '../receiver-client.ts'
import type { CommandContext } from './context.ts'
import { receiverArgument, withReceiver } from './receiver-command.ts'
import { jsonOption } from './vault-command.ts'

type Retention = RetentionPolicy | 'keep-all'

const rules = [
  ['keepLast', 'last', 'the newest N'],
  ['keepHourly', 'hourly', 'the newest of each of N hours'],
  ['keepDaily', 'daily', 'the newest of each of N days'],
  ['keepWeekly', 'weekly', 'the newest of each of N weeks (from Monday on)'],
  ['keepMonthly', 'monthly', 'the newest of each of N months'],
  ['keepYearly', 'yearly', 'the newest of each of N years'],
] as const

interface PolicyOptions extends RetentionPolicy {
  readonly source?: string
  readonly keepAll: boolean
  readonly inherit: boolean
  readonly timeZone?: string
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav policy http://127.0.0.1:8420/home
  chunkdav policy http://127.0.0.1:8420/home --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --keep-within 48h
  chunkdav policy http://127.0.0.1:8420/home --source photos --keep-all
  chunkdav policy http://127.0.0.1:8420/home --source photos --inherit

Without options it shows what is kept. With any --keep option it replaces the policy, of the vault or of one source, and
what any of the options keeps stays; without a policy everything stays. Hours, days, … without a backup do not count.
The receiver applies it every hour by its own clock: see first what it means with chunkdav prune URL --dry-run.

Who may back up to a source can make many backups in a row: --keep-last then soon keeps nothing else. --keep-within and the
calendar options are safe from that.`

/** Adds `policy` to the program. */
export function registerPolicy(program: Command, context: CommandContext): void {
  const command = program
    .command('policy')
    .description('Show or set which backups of a vault are kept')
    .argument(...receiverArgument)
    .option('--source <name>', 'the policy of this source, instead of that of the whole vault')
  for (const [, name, what] of rules) command.option(`--keep-${name} <n>`, `keep ${what}`, parseCount)
  command
    .option('--keep-within <span>', 'keep all within 12h, 30d, 4w, 6mo or 1y before the newest', parseSpan)
    .option('--keep-all', 'keep everything', false)
    .option('--inherit', 'with --source: let it have the policy of the vault again', false)
    .option(
      '--time-zone <name>',
      'whose days and weeks are meant, such as Europe/Vienna (default: UTC)',
      parseTimeZone,
    )
    .option(...jsonOption, false)
    .addHelpText('after', examples)
    .action((url: string, options: PolicyOptions) => policy(url, options, context))
}

function parseCount(text: string): number {
  const count = Number(text)
  if (/^[1-9][0-9]{0,6}$/.test(text) && count <= 1_000_000) return count
  throw new InvalidArgumentError('It must be a number of at least 1; what is not named is not kept.')
}

function parseSpan(text: string): string {
  if (/^[1-9][0-9]{0,3}(h|d|w|mo|y)$/.test(text)) return text
  throw new InvalidArgumentError('It must be a number with h, d, w, mo or y behind it, such as 30d or 6mo.')
}

function parseTimeZone(text: string): string {
  try {
    new Intl.DateTimeFormat('en', { timeZone: text })
    return text
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new InvalidArgumentError('It must be a time zone such as Europe/Vienna.')
  }
}

async function policy(url: string, options: PolicyOptions, context: CommandContext): Promise<void> {
  const wanted = wantedOf(options)
  const source = options.source === undefined ? undefined : parseSourceName(options.source)
  if (options.inherit && source === undefined) throw new Problem('usage', '--inherit needs a --source')
  const { timeZone } = options
  await withReceiver(url, context, async (client) => {
    const isChange = wanted !== undefined || options.inherit || timeZone !== undefined
    const change = (before: VaultSettings): VaultSettings => ({
      ...changed(before, source, options.inherit ? 'inherit' : wanted),
      ...(timeZone === undefined ? {} : { timeZone }),
    })
    const settings = isChange
      ? await changeSettings(client, change, context.signal)
      : (await client.settings({ signal: context.signal })).settings
    if (options.json) context.emit({ type: 'summary', ...settings })
    else tell(settings, source, isChange, client, context)
  })
}

/** What the options ask for; undefined when they only ask what there is. */
function wantedOf(options: PolicyOptions): Retention | undefined {
  const counts = rules.flatMap(([field]) => (options[field] === undefined ? [] : [[field, options[field]]]))
  const { keepWithin } = options
  const found: RetentionPolicy = { ...Object.fromEntries(counts), ...(keepWithin && { keepWithin }) }
  const isPolicy = Object.keys(found).length > 0
  if (Number(isPolicy) + Number(options.keepAll) + Number(options.inherit) > 1) {
    throw new Problem('usage', '--keep-all, --inherit and the other --keep options exclude each other')
  }
  if (options.keepAll) return 'keep-all'
  return isPolicy ? found : undefined
}

function changed(
  before: VaultSettings,
  source: string | undefined,
  wanted: Retention | 'inherit' | undefined,
): VaultSettings {
  const { retention: _, sources: __, ...rest } = before
  if (wanted === undefined) return before
  if (source === undefined) {
    const own = wanted === 'keep-all' || wanted === 'inherit' ? {} : { retention: wanted }
    return { ...rest, ...(before.sources && { sources: before.sources }), ...own }
  }
  const { [source]: ___, ...others } = before.sources ?? {}
  const sources = wanted === 'inherit' ? others : { ...others, [source]: wanted }
  return {
    ...rest,
    ...(before.retention && { retention: before.retention }),
    ...(Object.keys(sources).length > 0 && { sources }),
  }
}

/** Others who change them at the same time lose nothing. */
export async function changeSettings(
  client: ReceiverClient,
  change: (before: VaultSettings) => VaultSettings,
  signal: AbortSignal,
): Promise<VaultSettings> {
  for (let attempts = 1; ; attempts++) {
    const { settings, etag } = await client.settings({ signal })
    try {
      return await client.putSettings(change(settings), etag, { signal })
    } catch (error) {
      if (!isProblem(error, 'precondition-failed') || attempts === 5) throw error
    }
  }
}

function tell(
  { retention, sources = {}, timeZone }: VaultSettings,
  source: string | undefined,
  isChange: boolean,
  client: ReceiverClient,
  context: CommandContext,
): void {
  const { shown, withUser } = client.location
  const others = Object.entries(sources).sort(([a], [b]) => (a < b ? -1 : 1))
  if (source === undefined) {
    context.say(`${shown} keeps ${describeRetention(retention ?? 'keep-all')}.`)
    for (const [name, own] of others) context.say(`  but of ${name}: ${describeRetention(own)}`)
  } else {
    const own = sources[source]
    const text = describeRetention(own ?? retention ?? 'keep-all')
    context.say(`Of ${source} it keeps ${text}${own === undefined ? ', as of the vault' : ''}.`)
  }
  if (timeZone !== undefined) context.say(`  days and weeks are those of ${timeZone}`)
  if (isChange) context.say(`See what that means with: ${context.program} prune ${withUser} --dry-run`)
}

/** `the last 3, 7 daily, and all within 30d`; fits behind "keeps". */
export function describeRetention(retention: Retention): string {
  if (retention === 'keep-all') return 'everything'
  const parts: string[] = []
  for (const [field, name] of rules) {
    const count = retention[field]
    if (count === undefined) continue
    parts.push(
      field === 'keepLast' ? (count === 1 ? 'the last one' : `the last ${count}`) : `${count} ${name}`,
    )
  }
  const { keepWithin } = retention
  if (keepWithin !== undefined) parts.push(`all within ${keepWithin}`)
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`
}
