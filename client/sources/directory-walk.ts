/**
 * The walk of a directory tree, depth first, names in the order of their bytes.
 *
 * Runs on a worker thread and speaks in byte strings (latin1); a Buffer would drag its whole pool along. Memory: the
 * names of one directory, and of the directories still to be entered on the way down.
 *
 * A directory is listed only if it is still the one that was told of, and no symlink leads to it
 * (open-directories.ts).
 */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import type { StatToPack } from '../engine/packed-stat.ts'
import { type ExcludeOptions, ExcludeRules } from './exclude-rules.ts'
import { kindOf, statToPack } from './lstat.ts'
import { OpenDirectories } from './open-directories.ts'
import { fsPath } from './reachable-path.ts'
import { ScanBatchWriter } from './scan-batch.ts'
import type { Outlet } from './stream-thread.ts'

export interface ScanJob {
  /** Absolute byte strings: one directory, or several things to be gathered under a made-up root. */
  readonly roots: readonly { readonly name: string; readonly path: string }[]
  readonly gathered: boolean
  readonly exclude: ExcludeOptions
  readonly oneFileSystem: boolean
}

/** ENOTDIR and ELOOP: something else, or a symlink, stands where a directory was told of. */
const vanishedCodes = ['ENOENT', 'ENOTDIR', 'ELOOP']
const cacheTag = 'Signature: 8a477f597d28d172789f06886806bc55'

/** The directory made up to hold several sources: nothing about it changes from run to run. */
const gatheredStat: StatToPack = {
  size: 0,
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  ctimeNs: 0n,
  device: undefined,
  inode: undefined,
  links: 1,
  major: 0,
  minor: 0,
  sparse: false,
}

interface Pending {
  readonly name: string
  /** Absolute. */
  readonly path: string
  /** Below the source's root, for people and for patterns. */
  readonly shown: string
  readonly stat: StatToPack
  /** A mount point that is not crossed: told as an empty directory, so that a restore has where to mount. */
  readonly closed?: boolean
}

/** Walks `job` and sends batches (scan-batch.ts); returns early when the consumer gave up. */
export function walk(job: ScanJob, outlet: Outlet<Uint8Array>): void {
  new DirectoryWalk(job, outlet).run()
}

class DirectoryWalk {
  readonly #job: ScanJob
  readonly #outlet: Outlet<Uint8Array>
  readonly #exclude: ExcludeRules
  readonly #directories = new OpenDirectories()
  readonly #batch: ScanBatchWriter
  #device: bigint | undefined

  constructor(job: ScanJob, outlet: Outlet<Uint8Array>) {
    this.#job = job
    this.#outlet = outlet
    this.#batch = new ScanBatchWriter((batch) => outlet.send(batch))
    this.#exclude = new ExcludeRules(job.exclude)
  }

  run(): void {
    try {
      this.#all()
    } finally {
      this.#directories.close()
    }
  }

  #all(): void {
    if (this.#job.gathered) this.#gather()
    else {
      const [root] = this.#job.roots
      if (root === undefined) throw new TypeError('nothing to walk')
      const stat = statToPack(statRoot(root.path))
      this.#device = stat.device
      this.#tree({ name: '', path: root.path, shown: '', stat })
    }
    this.#batch.flush()
  }

  #gather(): void {
    this.#batch.enter('', gatheredStat)
    const directories: Pending[] = []
    for (const { name, path } of [...this.#job.roots].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      this.#entry(name, path, name, directories)
    }
    this.#batch.listed()
    for (const directory of directories) {
      this.#device = directory.stat.device
      this.#tree(directory)
    }
    this.#batch.leave()
  }

  /** One directory and all below it. A stack instead of recursion: trees are deeper than call stacks. */
  #tree(root: Pending): void {
    const stack: Pending[][] = [[root]]
    while (stack.length > 0 && !this.#outlet.cancelled) {
      const siblings = stack.at(-1) as Pending[]
      const next = siblings.pop()
      if (next === undefined) {
        stack.pop()
        if (stack.length > 0) this.#batch.leave()
        continue
      }
      this.#batch.enter(next.name, next.stat)
      stack.push(next.closed ? [] : this.#list(next).reverse())
      this.#batch.listed()
    }
  }

  /** Tells the entries of a directory; returns the directories among them. */
  #list(directory: Pending): Pending[] {
    const directories: Pending[] = []
    try {
      const base = this.#open(directory)
      if (base === undefined) return directories
      const names = readdirSync(fsPath(base), { encoding: 'latin1' }).sort()
      if (this.#job.exclude.caches && names.includes('CACHEDIR.TAG') && isCacheTag(`${base}/CACHEDIR.TAG`)) {
        names.splice(0, names.length, 'CACHEDIR.TAG')
      }
      for (const name of names) {
        if (this.#outlet.cancelled) break
        const shown = directory.shown === '' ? name : `${directory.shown}/${name}`
        this.#entry(name, `${base}/${name}`, shown, directories, `${directory.path}/${name}`)
      }
    } catch (error) {
      this.#problem(directory.shown, error)
    }
    return directories
  }

  /** A way to the directory that was told of; undefined where a mount meanwhile made it one not to be crossed. */
  #open({ path, stat: told }: Pending): string | undefined {
    const { base, stats } = this.#directories.list(path)
    if (stats === undefined) return base
    const now = statToPack(stats)
    // An automount is one: it takes place when it is opened.
    if (now.device !== told.device) return this.#job.oneFileSystem ? undefined : base
    if (!sameDirectory(told, now))
      throw new Problem('source-vanished', 'another directory has taken its place')
    return base
  }

  #entry(name: string, path: string, shown: string, directories: Pending[], absolute = path): void {
    try {
      const stats = lstatSync(fsPath(path), { bigint: true })
      const kind = kindOf(stats)
      if (kind === undefined || this.#exclude.matches(shown, kind === 'directory')) return
      const stat = statToPack(stats)
      const target = kind === 'symlink' ? readlinkSync(fsPath(path), { encoding: 'latin1' }) : undefined
      if (kind === 'directory') {
        const { oneFileSystem } = this.#job
        const closed = oneFileSystem && this.#device !== undefined && stat.device !== this.#device
        directories.push({ name, path: absolute, shown, stat, closed })
      }
      this.#batch.entry(name, kind, stat, target)
    } catch (error) {
      this.#problem(shown, error)
    }
  }

  #problem(path: string, error: unknown): void {
    const { code: errno = '', message = String(error) } = error as NodeJS.ErrnoException
    const detail = isProblem(error) ? message : errno || message
    this.#batch.problem(path, { code: codeOf(error), detail })
  }
}

function codeOf(error: unknown): ProblemCode {
  if (isProblem(error)) return error.code
  const { code = '' } = error as NodeJS.ErrnoException
  return vanishedCodes.includes(code) ? 'source-vanished' : 'source-unreadable'
}

/** Some FUSE and CIFS file systems number their inodes anew; another directory has another ctime. */
function sameDirectory(told: StatToPack, now: StatToPack): boolean {
  const sameInode = told.device === now.device && told.inode === now.inode
  return sameInode || (told.ctimeNs === now.ctimeNs && told.mtimeNs === now.mtimeNs)
}

/** Without its root there is no tree to tell of. */
function statRoot(path: string): BigIntStats {
  try {
    return lstatSync(fsPath(path), { bigint: true })
  } catch (error) {
    throw new Problem(codeOf(error), (error as Error).message, { cause: error })
  }
}

/**
 * Source: Cache Directory Tagging Specification 0.6: a regular file, no link to one, that begins with a
 * fixed signature. What cannot be read marks nothing.
 */
function isCacheTag(path: string): boolean {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const head = Buffer.alloc(cacheTag.length)
  let fd: number | undefined
  try {
    // O_NONBLOCK: a fifo must not be waited for.
    fd = openSync(fsPath(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    if (!fstatSync(fd).isFile()) return false
    return readSync(fd, head, 0, head.length, 0) === head.length && head.toString('latin1') === cacheTag
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return false
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
