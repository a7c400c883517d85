/**
 * Directories reached step by step, each through the descriptor of the one above, and never through a
 * symlink. The kernel follows links in the middle of a path: whoever may write to a directory of the tree
 * could swap one below it for a link while the tree is read, and have foreign files backed up. Steps also
 * lead to paths longer than the kernel takes.
 *
 * A step is what openat(2) does, made through /proc/self/fd/N: on Linux only, where /proc is mounted.
 * Elsewhere paths are used as they are: a link that is swapped in is followed, and paths that are too long
 * fail with ENAMETOOLONG.
 *
 * Held are the `maxOpen` directories used last: most files share theirs with the file before. A directory
 * that was let go is reached again from the nearest one above that is still held, at worst from the root
 * of the file system. One that is held stays the same directory, whatever takes its name meanwhile.
 *
 * Paths are absolute byte strings (latin1); the file system's root is the empty one.
 */
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readlinkSync, statSync } from 'node:fs'
import { fsPath } from './reachable-path.ts'

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants
/** From <fcntl.h> of Linux, which Node does not tell. To pass through a directory one needs no right to list it. */
const O_PATH = 0o10000000
const passFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW
const listFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK
const defaultMaxOpen = 24

export class OpenDirectories {
  /** Put before a descriptor, it is a path; undefined where no steps can be made. */
  readonly #steps: string | undefined
  readonly #maxOpen: number
  /** Path to descriptor, in the order of their last use. */
  readonly #held = new Map<string, number>()
  #last: { path: string; base: string } | undefined

  constructor(options: { stepwise?: boolean; maxOpen?: number } = {}) {
    this.#steps = options.stepwise === false ? undefined : pathOfDescriptors()
    this.#maxOpen = Math.max(2, options.maxOpen ?? defaultMaxOpen)
  }

  /**
   * What leads to the directory at `path`: put `/name` behind it. Valid until the next call of any method.
   * Throws what `open` throws: ENOTDIR or ELOOP where a link stands.
   */
  base(path: string): string {
    if (this.#steps === undefined) return path
    if (this.#last?.path === path) return this.#last.base
    return this.#used(path, this.#reach(path))
  }

  /** As `base`, for a directory that is to be listed; `stats` is undefined where no steps can be made. */
  list(path: string): { base: string; stats: BigIntStats | undefined } {
    if (this.#steps === undefined) return { base: path, stats: undefined }
    const fd =
      path === '' ? openSync('/', listFlags) : this.#step(this.#reach(parentOf(path)), path, listFlags)
    this.#hold(path, fd)
    return { base: this.#used(path, fd), stats: fstatSync(fd, { bigint: true }) }
  }

  #used(path: string, fd: number): string {
    const base = `${this.#steps}${fd}`
    this.#last = { path, base }
    return base
  }

  /** The descriptor of the directory at `path`, which is then the one used last. */
  #reach(path: string): number {
    let at = path
    while (at !== '' && !this.#held.has(at)) at = parentOf(at)
    let fd = this.#held.get(at) ?? openSync('/', passFlags)
    this.#hold(at, fd)
    while (at.length < path.length) {
      const end = path.indexOf('/', at.length + 1)
      at = end === -1 ? path : path.slice(0, end)
      fd = this.#step(fd, at, passFlags)
      this.#hold(at, fd)
    }
    return fd
  }

  #step(parent: number, path: string, flags: number): number {
    return openSync(fsPath(`${this.#steps}${parent}${path.slice(path.lastIndexOf('/'))}`), flags)
  }

  /** Notes that `fd` leads to `path` and was used last; lets go what was not used for longest. */
  #hold(path: string, fd: number): void {
    const before = this.#held.get(path)
    if (before !== undefined && before !== fd) closeSync(before)
    this.#held.delete(path)
    this.#held.set(path, fd)
    this.#last = undefined
    if (this.#held.size <= this.#maxOpen) return
    const [oldest, itsFd] = this.#held.entries().next().value as [string, number]
    this.#held.delete(oldest)
    closeSync(itsFd)
  }

  /** Lets go of all. Idempotent. */
  close(): void {
    for (const fd of this.#held.values()) closeSync(fd)
    this.#held.clear()
    this.#last = undefined
  }
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'))
}

/** Remembered: undefined before the first look, "" where nothing leads to descriptors. */
let descriptors: string | undefined

function pathOfDescriptors(): string | undefined {
  descriptors ??= process.platform === 'linux' ? findDescriptors() : ''
  return descriptors === '' ? undefined : descriptors
}

function findDescriptors(): string {
  let fd: number | undefined
  try {
    fd = openSync('/', passFlags)
    // A link less on the way than /proc/self: this is asked for every file.
    const steps = `/proc/${readlinkSync('/proc/self')}/fd/`
    const [through, direct] = [statSync(`${steps}${fd}/.`), fstatSync(fd)]
    return through.dev === direct.dev && through.ino === direct.ino ? steps : ''
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return ''
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
