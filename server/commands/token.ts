/** `chunkdav token …`: what machines log in with. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { Problem } from '../../protocol/problem.ts'
import { type Grants, narrower, rightIn } from '../access/grants.ts'
import type { Right } from '../access/identity.ts'
import { readLastUsed } from '../access/last-used.ts'
import { makeToken, tokenId } from '../access/tokens.ts'
import type { TokenEntry, UserEntry } from '../access/users-file.ts'
import { parseDuration } from '../upkeep/schedule-options.ts'
import {
  changeUsers,
  commandGroup,
  type DataOption,
  grantOption,
  grantsOf,
  helpOf,
  hint,
  inWords,
  memberCommand,
  rightsHelp,
  say,
  sayTable,
  userIn,
  usersIn,
} from './accounts-command.ts'
import { parsed, type Surroundings } from './data-command.ts'

interface CreateOptions extends DataOption {
  readonly grant: readonly [string, Right][]
  readonly metrics?: true
  readonly expires?: number
  readonly label?: string
  readonly json?: true
}

interface ListOptions extends DataOption {
  readonly json?: true
}

const createText = `
The token is all that is written to standard output, and it is shown this once: the receiver keeps only its hash.
It is sent as "Authorization: Bearer TOKEN", or stands where the password of its user does, for WebDAV clients.
Without --grant and --metrics it may do whatever its user may; with them no more than that.
`

export function tokenCommand(surroundings: Surroundings): Command {
  const member = (name: string, description: string): Command =>
    memberCommand(`token ${name}`, description, surroundings)
  return commandGroup('token', 'Make and revoke tokens, for machines to log in with', surroundings, [
    member('create', 'Make a token for a user')
      .argument('<user>', 'whose token it is')
      .addOption(grantOption('let it do only this'))
      .option(
        '--metrics',
        "let it read the receiver's metrics, if its user may, and nothing that is not granted",
      )
      .addOption(
        new Option(
          '--expires <duration>',
          'for how long it is good, such as 90d (default: until it is revoked)',
        ).argParser((text) => parsed(text, parseExpiry)),
      )
      .addOption(new Option('--label <text>', 'what it is for').argParser(parseLabel))
      .option('--json', 'a JSON object instead')
      .addHelpText('after', helpOf(createExamples, createText + rightsHelp))
      .action(create),
    member('list', 'List the tokens, and when they were used last')
      .argument('[user]', 'only those of this user')
      .option('--json', 'one JSON object a line; the last one is the summary')
      .addHelpText('after', helpOf(['chunkdav token list', 'chunkdav token list alice --json']))
      .action(list),
    member('revoke', 'Revoke a token')
      .argument('<id>', 'its id, from token list, or the token itself')
      .addHelpText('after', helpOf(['chunkdav token revoke 5f0c1be2a94d']))
      .action(revoke),
  ])
}

const createExamples = [
  'chunkdav token create alice --label laptop',
  'chunkdav token create alice --grant home=append-only --expires 90d --label nas',
  'chunkdav token create prometheus --metrics > /etc/prometheus/chunkdav-token',
]

function parseExpiry(text: string): number {
  const ms = parseDuration(text)
  if (ms === 0) throw new Problem('usage', 'it must be good for some time')
  return ms
}

function parseLabel(text: string): string {
  if (text.length > 0 && text.length <= 80 && !/\p{Cc}/u.test(text)) return text
  throw new InvalidArgumentError('It must be 1 to 80 characters in one line.')
}

async function create(userName: string, options: CreateOptions): Promise<void> {
  const { grant, metrics = false, expires, label, json = false } = options
  const { id, token, hash } = makeToken()
  const now = Date.now()
  const isNarrowed = grant.length > 0 || metrics
  const { user, entry } = await changeUsers(
    options,
    (users) => {
      const user = userIn(users, userName)
      const entry: TokenEntry = {
        id,
        user: user.name,
        hash,
        ...(label === undefined ? {} : { label }),
        ...(isNarrowed ? { grants: grantsOf(grant), metrics } : {}),
        created: new Date(now).toISOString(),
        ...(expires === undefined ? {} : { expires: new Date(now + expires).toISOString() }),
      }
      users.tokens.push(entry)
      return { user, entry }
    },
    ({ entry }) => ({ event: 'token-created', user: entry.user, ...shown(entry) }),
  )
  say(json ? JSON.stringify({ type: 'token', token, user: entry.user, ...shown(entry) }) : token)
  for (const [vault, right] of grant) hintNarrower(user, vault, right)
  if (json) return
  const until = entry.expires === undefined ? 'until it is revoked' : `until ${entry.expires}`
  hint(`Token ${id} of ${user.name}, good ${until}. It is not shown again.`)
}

/** What may be told of a token. */
function shown({ user: _user, hash: _hash, ...rest }: TokenEntry): Omit<TokenEntry, 'user' | 'hash'> {
  return rest
}

/** A token that is granted more than its user has does not do what was meant. */
function hintNarrower({ name, grants }: UserEntry, vault: string, right: Right): void {
  const has = rightIn(grants as Grants, vault)
  const left = narrower(has, right)
  if (left === right) return
  hint(`${name} has ${has ?? 'no right'} on ${vault}, so this token is good for ${left ?? 'nothing'} there.`)
}

async function list(userName: string | undefined, options: ListOptions): Promise<void> {
  const users = await usersIn(options)
  const owner = userName === undefined ? undefined : userIn(users, userName).name
  const used = await readLastUsed(options.data)
  const tokens = users.tokens.filter(({ user }) => owner === undefined || user === owner)
  const rows = tokens.map((token) => {
    const { id, user, ...rest } = { ...shown(token), user: token.user }
    const time = used.get(id)
    const hasExpired = token.expires !== undefined && Date.parse(token.expires) <= Date.now()
    return {
      id,
      user,
      ...rest,
      hasExpired,
      ...(time === undefined ? {} : { lastUsed: new Date(time).toISOString() }),
    }
  })
  if (options.json === true) {
    for (const row of rows) say(JSON.stringify({ type: 'token', ...row }))
    say(JSON.stringify({ type: 'summary', tokens: rows.length }))
    return
  }
  if (rows.length === 0) return hint('there are no tokens')
  sayTable([
    ['ID', 'USER', 'LABEL', 'MAY', 'EXPIRES', 'LAST USED (ABOUT)'],
    ...rows.map((row) => [
      row.id,
      row.user,
      row.label ?? '',
      row.grants === undefined ? 'all of its user' : inWords(row),
      row.hasExpired ? 'expired' : (row.expires?.slice(0, 16) ?? 'never'),
      row.lastUsed?.slice(0, 16) ?? '',
    ]),
  ])
}

async function revoke(text: string, options: DataOption): Promise<void> {
  const id = tokenId(text) ?? text
  const token = await changeUsers(
    options,
    (users) => {
      const token = users.tokens.find((each) => each.id === id)
      if (token === undefined)
        throw new Problem('not-found', `there is no token ${JSON.stringify(id.slice(0, 20))}`)
      users.tokens = users.tokens.filter((each) => each !== token)
      return token
    },
    (token) => ({ event: 'token-revoked', user: token.user, ...shown(token) }),
  )
  say(`the token ${token.id} of ${token.user} is revoked`)
}
