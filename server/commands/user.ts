/** `chunkdav user …`: who may log in, and what they may do. */
import { access } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { Problem } from '../../protocol/problem.ts'
import { everyVault, parseGrant, parseGrantedVault } from '../access/grants.ts'
import type { Right } from '../access/identity.ts'
import { hashPassword } from '../access/passwords.ts'
import { parseUserName } from '../access/user-name.ts'
import { readUsers, type UserEntry, type UsersDocument } from '../access/users-file.ts'
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
  namedVaults,
  rightsHelp,
  say,
  sayTable,
  userIn,
  usersIn,
} from './accounts-command.ts'
import type { Surroundings } from './data-command.ts'
import { readNewPassword } from './read-password.ts'

interface AddOptions extends DataOption {
  readonly grant: readonly [string, Right][]
  readonly metrics?: true
  readonly password: boolean
  readonly passwordFile?: string
  readonly htpasswd?: true
}

interface RightsOptions extends DataOption {
  readonly metrics?: true
}

const passwordHelp = 'read the password from the first line of a file, or of standard input (-)'
const passwordText = `
The password is asked for at the terminal, twice; where there is none, it is a line of standard input.
`

export function userCommand(surroundings: Surroundings): Command {
  const member = (name: string, description: string): Command =>
    memberCommand(`user ${name}`, description, surroundings)
  return commandGroup('user', 'Say who may log in, and what they may do', surroundings, [
    member('add', 'Add a user')
      .argument('<name>', 'the name to log in with')
      .addOption(grantOption('what the user may do'))
      .option('--metrics', "let the user read the receiver's metrics")
      .option('--password-file <file>', passwordHelp)
      .option('--no-password', 'none: a certificate or a proxy vouches for the user, or only tokens are used')
      .option('--htpasswd', 'none: it is in the file of serve --htpasswd, under the same name')
      .addHelpText('after', helpOf(addExamples, passwordText + rightsHelp))
      .action((name: string, options: AddOptions) => add(name, options, surroundings)),
    member('passwd', 'Change the password of a user')
      .argument('<name>', 'the user')
      .option('--password-file <file>', passwordHelp)
      .addHelpText(
        'after',
        helpOf(['chunkdav user passwd alice'], `${passwordText}Tokens stay as they are.\n`),
      )
      .action(passwd),
    member('grant', 'Give rights to a user, or other ones')
      .argument('<name>', 'the user')
      .argument('[vault=right...]', 'what the user may do from now on')
      .option('--metrics', "let the user read the receiver's metrics")
      .addHelpText('after', helpOf(['chunkdav user grant alice home=write photos=append+read'], rightsHelp))
      .action(grant),
    member('revoke', 'Take rights from a user')
      .argument('<name>', 'the user')
      .argument('[vault...]', 'the vaults that were granted')
      .option('--metrics', "no longer let the user read the receiver's metrics")
      .addHelpText('after', helpOf(["chunkdav user revoke alice photos '*'"]))
      .action(revoke),
    member('list', 'List the users')
      .option('--json', 'one JSON object a line; the last one is the summary')
      .addHelpText('after', helpOf(['chunkdav user list']))
      .action(list),
    member('remove', 'Remove a user, with all tokens')
      .argument('<name>', 'the user')
      .addHelpText('after', helpOf(['chunkdav user remove alice'], 'What the user has backed up stays.\n'))
      .action(remove),
  ])
}

const addExamples = [
  "chunkdav user add root --grant '*=admin'",
  'chunkdav user add alice --grant home=write --grant photos=append+read',
  'pwgen 20 1 | chunkdav user add laptop --grant home=append-only',
  'chunkdav user add bob --grant home=read --htpasswd',
  'chunkdav user add prometheus --metrics --no-password && chunkdav token create prometheus',
]

async function add(text: string, options: AddOptions, surroundings: Surroundings): Promise<void> {
  const name = parseUserName(text)
  const { grant, metrics = false, htpasswd = false, passwordFile } = options
  const isWithout = htpasswd || !options.password
  // Before anybody is asked for a password.
  expectNew(name, (await readUsers(resolve(options.data)))?.users ?? [])
  if (isWithout && passwordFile !== undefined) throw new Problem('usage', 'either a password, or none')
  const entry: UserEntry = {
    name,
    ...(isWithout ? {} : { password: await hashPassword(await readNewPassword(name, passwordFile)) }),
    grants: grantsOf(grant),
    ...(metrics ? { metrics } : {}),
    added: new Date().toISOString(),
  }
  const users = await changeUsers(
    options,
    (users) => {
      expectNew(name, users.users)
      users.users.push(entry)
      return structuredClone(users)
    },
    () => ({ event: 'user-added', user: name, may: inWords(entry) }),
  )
  say(`${name} was added, and may: ${inWords(entry)}`)
  await tellNext(entry, users, options, surroundings)
}

function expectNew(name: string, users: readonly UserEntry[]): void {
  if (!users.some((each) => each.name === name)) return
  throw new Problem('destination-exists', `there is a user ${name} already; see user passwd and user grant`)
}

/** What is left to be done, if anything. */
async function tellNext(
  { name, grants, password, metrics }: UserEntry,
  { users }: UsersDocument,
  { data, htpasswd }: AddOptions,
  { calledAs, defaultDataDir }: Surroundings,
): Promise<void> {
  const command = (words: string): string =>
    `${calledAs} ${words}${data === defaultDataDir ? '' : ` --data ${data}`}`
  if (users.length === 1) hint('From now on the receiver asks everybody who they are.')
  if (users.every((each) => each.grants[everyVault] !== 'admin')) {
    hint(`Nobody may do everything yet, such as set quotas: ${command("user grant NAME '*=admin'")}`)
  }
  if (Object.keys(grants).length === 0 && metrics !== true) {
    hint(`${name} may do nothing yet: ${command(`user grant ${name} VAULT=RIGHT`)}`)
  }
  await hintAbsent(data, grants)
  if (password === undefined && htpasswd !== true)
    hint(`A token to log in with: ${command(`token create ${name}`)}`)
  const [vault] = namedVaults(grants)
  if (vault !== undefined && password !== undefined) {
    hint(`Back up with: ${calledAs} backup DIR http://${encodeURIComponent(name)}@HOST:PORT/${vault}`)
  }
}

/** Vaults that are granted and not there may be meant, or misspelt. */
async function hintAbsent(data: string, grants: UserEntry['grants']): Promise<void> {
  for (const vault of namedVaults(grants)) {
    try {
      await access(join(resolve(data), 'vaults', vault))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      hint(`There is no vault ${vault} yet; the first backup of whoever may administer it creates it.`)
    }
  }
}

async function passwd(name: string, options: DataOption & { passwordFile?: string }): Promise<void> {
  userIn(await usersIn(options), name)
  const password = await hashPassword(await readNewPassword(name, options.passwordFile))
  const user = await changeUsers(
    options,
    (users) => Object.assign(userIn(users, name), { password }),
    (user) => ({ event: 'user-changed', user: user.name, password: 'changed' }),
  )
  say(`the password of ${user.name} is another one now`)
}

async function grant(name: string, texts: string[], options: RightsOptions): Promise<void> {
  const grants = grantsOf(texts.map(parseGrant))
  if (texts.length === 0 && options.metrics !== true)
    throw new Problem('usage', 'say what to grant: VAULT=RIGHT, or --metrics')
  const user = await changeUsers(
    options,
    (users) => {
      const user = userIn(users, name)
      Object.assign(user.grants, grants)
      if (options.metrics === true) user.metrics = true
      return user
    },
    (user) => ({ event: 'user-changed', user: user.name, may: inWords(user) }),
  )
  say(`${user.name} may now: ${inWords(user)}`)
  await hintAbsent(options.data, grants)
}

async function revoke(name: string, texts: string[], options: RightsOptions): Promise<void> {
  const vaults = texts.map(parseGrantedVault)
  if (vaults.length === 0 && options.metrics !== true)
    throw new Problem('usage', 'say what to take: the names of vaults, or --metrics')
  const user = await changeUsers(
    options,
    (users) => {
      const user = userIn(users, name)
      for (const vault of vaults) {
        if (!Object.hasOwn(user.grants, vault))
          throw new Problem(
            'not-found',
            `${user.name} was granted nothing on ${vault}, but: ${inWords(user)}`,
          )
        delete user.grants[vault]
      }
      if (options.metrics === true) delete user.metrics
      return user
    },
    (user) => ({ event: 'user-changed', user: user.name, may: inWords(user) }),
  )
  say(`${user.name} may now: ${inWords(user)}`)
}

async function list(options: DataOption & { json?: true }): Promise<void> {
  const { users, tokens } = await usersIn(options)
  const rows = users.map((user) => ({
    ...user,
    password: user.password !== undefined,
    tokens: tokens.filter((token) => token.user === user.name).length,
  }))
  if (options.json === true) {
    for (const row of rows) say(JSON.stringify({ type: 'user', ...row }))
    say(JSON.stringify({ type: 'summary', users: rows.length }))
    return
  }
  if (rows.length === 0) {
    hint('there are no users: everybody who can reach the receiver may do everything')
    return
  }
  sayTable([
    ['NAME', 'PASSWORD', 'TOKENS', 'MAY'],
    ...rows.map((row) => [row.name, row.password ? 'yes' : 'no', String(row.tokens), inWords(row)]),
  ])
}

async function remove(name: string, options: DataOption): Promise<void> {
  const { user, tokens, left } = await changeUsers(
    options,
    (users) => {
      const user = userIn(users, name)
      const before = users.tokens.length
      users.users = users.users.filter((each) => each !== user)
      users.tokens = users.tokens.filter((token) => token.user !== user.name)
      return { user, tokens: before - users.tokens.length, left: users.users.length }
    },
    ({ user, tokens }) => ({ event: 'user-removed', user: user.name, tokens }),
  )
  say(`${user.name} was removed${tokens === 0 ? '' : `, with ${tokens} token${tokens === 1 ? '' : 's'}`}`)
  if (left === 0) {
    hint(
      'Nobody is left. A receiver that runs lets nobody in; when it starts again, it asks nobody who they are.',
    )
  }
}
