/**
 * Looks at a data directory and says what is wrong with it, and what to do. Changes nothing: neither does it open the
 * stores, which recovers them, nor does it take the lock. While a receiver is at work, what that has open is left out.
 */
import { readdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import prettyBytes from 'pretty-bytes'
import { isProblem } from '../../protocol/problem.ts'
import { readUsers } from '../access/users-file.ts'
import { defaultReserveBytes } from '../disk-room.ts'
import { isVaultName } from '../vaults.ts'
import {
  type Examined,
  errorCode,
  errorText,
  type Finding,
  type Findings,
  note,
  problem,
  shellWord,
  warning,
} from './finding.ts'
import { isOpenElsewhere } from './level-view.ts'
import { examineVault } from './vault.ts'

export interface DoctorOptions {
  /** Read and hash everything that is stored. */
  readonly deep?: boolean
}

export interface DoctorReport {
  readonly isInUse: boolean
  readonly vaults: number
  readonly problems: number
  readonly warnings: number
}

/** Tells `tell` what it finds, as it finds it. */
export async function examine(
  dataDir: string,
  { deep = false }: DoctorOptions,
  tell: (finding: Finding) => void,
): Promise<DoctorReport> {
  const counts = { problem: 0, warning: 0, note: 0 }
  const take = async (findings: Findings): Promise<void> => {
    try {
      for await (const finding of findings) {
        counts[finding.severity]++
        tell(finding)
      }
    } catch (error) {
      const finding = unreadable(dataDir, error)
      counts.problem++
      tell(finding)
    }
  }
  const known = await lockOf(dataDir)
  const isInUse = known ?? true
  if (known === undefined) {
    tell(note('lock', 'whether a receiver is at work here cannot be told by this user: taken for so'))
  }
  const examined: Examined = { dataDir, shell: shellWord(dataDir), isInUse, deep }
  let vaults = 0
  await take(examineDirectory(examined))
  for (const name of await vaultNames(dataDir)) {
    vaults++
    await take(examineVault(examined, name))
  }
  await take(examineEnd(examined))
  return { isInUse, vaults, problems: counts.problem, warnings: counts.warning }
}

/** Whether a receiver is at work; undefined when that cannot be told. */
async function lockOf(dataDir: string): Promise<boolean | undefined> {
  try {
    return await isOpenElsewhere(join(dataDir, 'lock'))
  } catch (error) {
    if (errorCode(error) === undefined) throw error
    return undefined
  }
}

/** Whatever could not be read at all. */
function unreadable(dataDir: string, error: unknown): Finding {
  const code = errorCode(error)
  if (code === undefined || isProblem(error)) throw error
  const path = (error as NodeJS.ErrnoException).path ?? dataDir
  if (code === 'ENOENT' && path === dataDir) {
    return problem('.', `there is nothing at ${dataDir}`, 'name another directory with --data')
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return problem(
      path,
      'this user may not read it',
      'run doctor as the user whom the receiver runs as, or as root',
    )
  }
  return problem(
    path,
    `it cannot be read: ${errorText(error)}`,
    code === 'EIO' ? 'look at the disk' : undefined,
  )
}

async function vaultNames(dataDir: string): Promise<string[]> {
  try {
    const entries = await readdir(join(dataDir, 'vaults'), { withFileTypes: true })
    return entries
      .filter((entry) => entry.isDirectory() && isVaultName(entry.name))
      .map(({ name }) => name)
      .sort()
  } catch (error) {
    if (['ENOENT', 'EACCES', 'ENOTDIR'].includes(errorCode(error) ?? '')) return []
    throw error
  }
}

async function* examineDirectory({ dataDir, shell, isInUse }: Examined): Findings {
  const directory = await stat(dataDir)
  const { uid, gid, mode } = directory
  if (isInUse) {
    yield note(
      '.',
      'a receiver is at work here: the index and the live tree are left out. Stop it to look at them too',
    )
  }
  if ((mode & 0o022) !== 0) yield problem('.', 'others may write here', `chmod 700 ${shell}`)
  else if ((mode & 0o055) !== 0) yield warning('.', 'others may look in here', `chmod 700 ${shell}`)
  const own = process.getuid?.()
  if (own !== undefined && own !== 0 && own !== uid) {
    yield warning('.', `it belongs to user ${uid}, not to you`, 'run chunkdav as the user whom it belongs to')
  }
  yield* examineOwners(dataDir, { uid, gid }, shell)
  yield* examineSpace(dataDir)
  yield* examineUsers(dataDir, shell)
  try {
    await stat(join(dataDir, 'vaults'))
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error
    yield problem('vaults', 'there is no such folder; is this a data directory?', 'name another with --data')
  }
}

/** Levels below the data directory that are looked through: the files of a vault's folders. */
const levels = 4
/** Files of others that are named. */
const namedFiles = 5

/** What a command run as root left behind cannot be written by the receiver. */
async function* examineOwners(dataDir: string, own: { uid: number; gid: number }, shell: string): Findings {
  const foreign: string[] = []
  let count = 0
  const look = async (path: string, depth: number): Promise<void> => {
    for (const entry of await readdir(join(dataDir, path), { withFileTypes: true })) {
      const below = path === '' ? entry.name : `${path}/${entry.name}`
      let found: Awaited<ReturnType<typeof stat>>
      try {
        found = await stat(join(dataDir, below))
      } catch (error) {
        // A receiver at work removes files.
        if (errorCode(error) === 'ENOENT') continue
        throw error
      }
      if (found.uid !== own.uid && below !== 'lost+found') {
        count++
        if (foreign.length < namedFiles) foreign.push(below)
      }
      if (entry.isDirectory() && depth < levels && below !== 'lost+found') await look(below, depth + 1)
    }
  }
  await look('', 1)
  if (count === 0) return
  const rest = count > foreign.length ? ` and ${count - foreign.length} more` : ''
  const what = `${foreign.join(', ')}${rest}: of another user than the directory; the receiver may not be able to write there`
  yield problem('.', what, `chown -R ${own.uid}:${own.gid} ${shell}`)
}

const GiB = 1024 ** 3

async function* examineSpace(dataDir: string): Findings {
  const { blocks, bavail, bsize, files, ffree } = await statfs(dataDir)
  const free = bavail * bsize
  const reserve = defaultReserveBytes(blocks * bsize)
  const left = `${prettyBytes(free)} are free`
  const todo =
    'make room: remove backups (chunkdav prune, chunkdav forget), then chunkdav gc; or use a larger disk'
  if (free <= reserve) {
    yield problem(
      '.',
      `the disk is full: ${left}, and a receiver keeps ${prettyBytes(reserve)} for itself`,
      todo,
    )
  } else if (free < reserve + GiB || free < (blocks * bsize) / 20) {
    yield warning('.', `the disk is nearly full: ${left}`, todo)
  }
  if (files > 0 && ffree < 1000) yield problem('.', `the file system has ${ffree} free inodes left`, todo)
}

async function* examineUsers(dataDir: string, shell: string): Findings {
  for (const name of ['users.json', 'audit.jsonl']) {
    try {
      const { mode } = await stat(join(dataDir, name))
      if ((mode & 0o077) === 0) continue
      const text = 'others than its owner may read it'
      const todo = `chmod 600 ${shell}/${name}`
      yield name === 'users.json' ? problem(name, text, todo) : warning(name, text, todo)
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') throw error
    }
  }
  try {
    await readUsers(dataDir)
  } catch (error) {
    if (!isProblem(error)) throw error
    yield problem(
      'users.json',
      error.message,
      'bring it back from a copy, or remove it and add the users anew',
    )
  }
}

/** A receiver that was started in the meantime may have been seen in the middle of its work. */
async function* examineEnd({ dataDir, isInUse }: Examined): Findings {
  if (isInUse || (await lockOf(dataDir)) !== true) return
  yield warning(
    '.',
    'a receiver was started meanwhile: what was found may be its work',
    'stop it and look again',
  )
}
