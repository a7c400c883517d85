/**
 * The walk of a directory tree, depth first, names in the order of their bytes.
 *
 * Runs on a worker thread and speaks in byte strings (latin1); a Buffer would drag its whole pool along. A batch of
 * messages travels as JSON, which takes half the time of a clone (measured). Memory: the names of one directory, and of the directories still to be entered
 * on the way down.
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
import type { EntryKind, SourceStat } from '../engine/source.ts'
import { type ExcludeOptions, ExcludeRules } from './exclude-rules.ts'
import { kindOf, sourceStat } from './lstat.ts'
import { OpenDirectories } from './open-directories.ts'
import { fsPath } from './reachable-path.ts'
import type { Outlet } from './stream-thread.ts'

export interface ScanJob {
  /** Absolute byte strings: one directory, or several things to be gathered under a made-up root. */
  readonly roots: readonly { readonly name: string; readonly path: string }[]
  readonly gathered: boolean
  readonly exclude: ExcludeOptions
  readonly oneFileSystem: boolean
}

export type ScanMessage =
  | { type: 'enter'; name: string; stat: SourceStat }
  | { type: 'entry'; name: string; kind: EntryKind; stat: SourceStat; target?: string }
  | { type: 'listed' }
  | { type: 'leave' }
  | { type: 'problem'; path: string; code: ProblemCode; detail: string }

const batchMessages = 256
/** ENOTDIR and ELOOP: something else, or a symlink, stands where a directory was told of. */
const vanishedCodes = ['ENOENT', 'ENOTDIR', 'ELOOP']
const cacheTag = 'Signature: 8a477f597d28d172789f06886806bc55'

/** The directory made up to hold several sources: nothing about it changes from run to run. */
const gatheredStat: SourceStat = {
  size: 0,
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeNs: '0',
  ctimeNs: '0',
  inode: '',
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
  readonly stat: SourceStat
  /** A mount point that is not crossed: told as an empty directory, so that a restore has where to mount. */
  readonly closed?: boolean
}

/** Walks `job` and sends batches, each the JSON of a `ScanMessage[]`; returns early when the consumer gave up. */
export function walk(job: ScanJob, outlet: Outlet<string>): void {
  new DirectoryWalk(job, outlet).run()
}

class DirectoryWalk {
  readonly #job: ScanJob
  readonly #outlet: Outlet<string>
  readonly #exclude: ExcludeRules
  readonly #directories = new OpenDirectories()
  #batch: ScanMessage[] = []
  #device = ''

  constructor(job: ScanJob, outlet: Outlet<string>) {
    this.#job = job
    this.#outlet = outlet
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
      const stat = sourceStat(statRoot(root.path))
      this.#device = deviceOf(stat)
      this.#tree({ name: '', path: root.path, shown: '', stat })
    }
    this.#flush()
  }

  #gather(): void {
    this.#tell({ type: 'enter', name: '', stat: gatheredStat })
    const directories: Pending[] = []
    for (const { name, path } of [...this.#job.roots].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      this.#entry(name, path, name, directories)
    }
    this.#tell({ type: 'listed' })
    for (const directory of directories) {
      this.#device = deviceOf(directory.stat)
      this.#tree(directory)
    }
    this.#tell({ type: 'leave' })
  }

  /** One directory and all below it. A stack instead of recursion: trees are deeper than call stacks. */
  #tree(root: Pending): void {
    const stack: Pending[][] = [[root]]
    while (stack.length > 0 && !this.#outlet.cancelled) {
      const siblings = stack.at(-1) as Pending[]
      const next = siblings.pop()
      if (next === undefined) {
        stack.pop()
        if (stack.length > 0) this.#tell({ type: 'leave' })
        continue
      }
      this.#tell({ type: 'enter', name: next.name, stat: next.stat })
      stack.push(next.closed ? [] : this.#list(next).reverse())
      this.#tell({ type: 'listed' })
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
    const now = sourceStat(stats)
    // An automount is one: it takes place when it is opened.
    if (deviceOf(now) !== deviceOf(told)) return this.#job.oneFileSystem ? undefined : base
    if (!sameDirectory(told, now))
      throw new Problem('source-vanished', 'another directory has taken its place')
    return base
  }

  #entry(name: string, path: string, shown: string, directories: Pending[], absolute = path): void {
    try {
      const stats = lstatSync(fsPath(path), { bigint: true })
      const kind = kindOf(stats)
      if (kind === undefined || this.#exclude.matches(shown, kind === 'directory')) return
      const stat = sourceStat(stats)
      const message: ScanMessage = { type: 'entry', name, kind, stat }
      if (kind === 'symlink') message.target = readlinkSync(fsPath(path), { encoding: 'latin1' })
      if (kind === 'directory') {
        const closed = this.#job.oneFileSystem && this.#device !== '' && deviceOf(stat) !== this.#device
        directories.push({ name, path: absolute, shown, stat, closed })
      }
      this.#tell(message)
    } catch (error) {
      this.#problem(shown, error)
    }
  }

  #problem(path: string, error: unknown): void {
    const { code: errno = '', message = String(error) } = error as NodeJS.ErrnoException
    const detail = isProblem(error) ? message : errno || message
    this.#tell({ type: 'problem', path, code: codeOf(error), detail })
  }

  #tell(message: ScanMessage): void {
    this.#batch.push(message)
    if (this.#batch.length >= batchMessages) this.#flush()
  }

  #flush(): void {
    if (this.#batch.length > 0) this.#outlet.send(JSON.stringify(this.#batch))
    this.#batch = []
  }
}

function codeOf(error: unknown): ProblemCode {
  if (isProblem(error)) return error.code
  const { code = '' } = error as NodeJS.ErrnoException
  return vanishedCodes.includes(code) ? 'source-vanished' : 'source-unreadable'
}

/** Some FUSE and CIFS file systems number their inodes anew; another directory has another ctime. */
function sameDirectory(told: SourceStat, now: SourceStat): boolean {
  return told.inode === now.inode || (told.ctimeNs === now.ctimeNs && told.mtimeNs === now.mtimeNs)
}

/** Without its root there is no tree to tell of. */
function statRoot(path: string): BigIntStats {
  try {
    return lstatSync(fsPath(path), { bigint: true })
  } catch (error) {
    throw new Problem(codeOf(error), (error as Error).message, { cause: error })
  }
}

function deviceOf(stat: SourceStat): string {
  return stat.inode.slice(0, stat.inode.indexOf(':'))
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
