/** What the commands `user` and `token` have in common. */
import { stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { Problem } from '../../protocol/problem.ts'
import { everyVault, type Grants, parseGrant } from '../access/grants.ts'
import type { Right } from '../access/identity.ts'
import {
  editUsers,
  readUsers,
  type TokenEntry,
  type UserEntry,
  type UsersDocument,
} from '../access/users-file.ts'
import { Audit, type AuditEvent } from '../audit.ts'
import { makeFolders } from '../data-lock.ts'
import { dataCommand, parsed, refusal, type Surroundings } from './data-command.ts'

export interface DataOption {
  readonly data: string
}

/** `chunkdav {name} …`: commands that belong together. */
export function commandGroup(
  name: string,
  description: string,
  { calledAs }: Surroundings,
  members: readonly Command[],
): Command {
  const group = new Command(name)
    .description(description)
    .exitOverride()
    .configureOutput({ outputError: refusal(name, calledAs) })
  for (const member of members) group.addCommand(member)
  return group
}

/** A command of a group: `name` is both words. */
export function memberCommand(name: string, description: string, surroundings: Surroundings): Command {
  return dataCommand(name, description, surroundings).name(name.split(' ').at(-1) as string)
}

/** `--grant VAULT=RIGHT`, repeatable: the option `grant` is a list, empty if there is none. */
export function grantOption(description: string): Option {
  return new Option('--grant <vault=right>', `${description} (repeatable)`)
    .argParser((text, before: [string, Right][]) => [...before, parsed(text, parseGrant)])
    .default([], 'none')
}

export const rightsHelp = `
VAULT is the name of a vault, or * for every vault that is not named ('*=read' in quotes, because of the shell).

RIGHT is one of
  read         restore, and read everything there is
  append-only  back up; neither read nor change what is there
  append+read  back up and restore; change nothing that is there
  write        back up, restore, delete, and the live tree
  admin        all of it; create the vault, and its policy and upkeep. On * also quotas
`

const exitHelp = `
It may be used while a receiver runs on the data, which follows within a second or two.

Exit codes: 0 done, 1 it failed, 2 wrong usage.`

export function helpOf(examples: readonly string[], more = ''): string {
  return `\nExample${examples.length === 1 ? '' : 's'}:\n${examples.map((line) => `  ${line}`).join('\n')}\n${more}${exitHelp}`
}

/** Changes the users; what `change` returns is durable, and `tell` of it is in the audit, on return. */
export async function changeUsers<T>(
  { data }: DataOption,
  change: (users: UsersDocument) => T,
  tell: (result: T) => AuditEvent,
): Promise<T> {
  const dataDir = resolve(data)
  const by = `os:${systemUser()}`
  await makeFolders(dataDir)
  await becomeOwnerOf(dataDir)
  // First the audit: what cannot be told of is not done.
  const audit = await Audit.open(dataDir)
  try {
    const result = await editUsers(dataDir, change)
    audit.note({ ...tell(result), by })
    return result
  } finally {
    await audit.close()
  }
}

/** The users as they are, none when there is no file. */
export async function usersIn({ data }: DataOption): Promise<UsersDocument> {
  const dataDir = resolve(data)
  if (!(await stat(dataDir)).isDirectory())
    throw new Problem('destination-failed', `${dataDir} is no directory`)
  return (await readUsers(dataDir)) ?? { format: 1, users: [], tokens: [] }
}

/**
 * Root acts as the owner of the data directory from here on: else the receiver, which runs as that owner, could not
 * read what root has written.
 */
async function becomeOwnerOf(dataDir: string): Promise<void> {
  if (process.geteuid?.() !== 0) return
  const { uid, gid } = await stat(dataDir)
  if (uid === 0) return
  process.setgroups?.([gid])
  process.setgid?.(gid)
  process.setuid?.(uid)
}

/** Who runs the command, to the operating system. In a container they may have no name. */
function systemUser(): string {
  try {
    return userInfo().username
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SYSTEM_ERROR') throw error
    return String(process.geteuid?.())
  }
}

/** Problem `not-found`. */
export function userIn(users: UsersDocument, name: string): UserEntry {
  const user = users.users.find((each) => each.name === name.normalize('NFC'))
  if (user === undefined)
    throw new Problem('not-found', `there is no user ${JSON.stringify(name.slice(0, 80))}`)
  return user
}

/** What somebody may do, in a few words. */
export function inWords({ grants = {}, metrics }: Pick<TokenEntry, 'grants' | 'metrics'>): string {
  const words = Object.entries(grants).map(([vault, right]) => `${vault}=${right}`)
  if (metrics === true) words.push('metrics')
  return words.length === 0 ? 'nothing' : words.join(' ')
}

export function grantsOf(pairs: readonly (readonly [string, Right])[]): Record<string, Right> {
  return Object.fromEntries(pairs)
}

/** Vaults that are granted by their names. */
export function namedVaults(grants: Grants): string[] {
  return Object.keys(grants).filter((vault) => vault !== everyVault)
}

export function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** For people, beside an output that a program may read. */
export function hint(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Columns as wide as what is in them. */
export function sayTable(rows: readonly (readonly string[])[]): void {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  for (const row of rows)
    say(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
}
