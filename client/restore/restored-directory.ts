/**
 * A directory at the destination while things are restored into it.
 *
 * - What exists is looked at with lstat before it is used: a symlink is never followed below the root.
 * - It is made with mode 0700; its own attributes are set when everything below it is done, since
 *   writing into it would change its time, and its mode may forbid writing.
 * - A path that grows longer than the kernel takes starts anew at /proc/self/fd/N of an opened directory
 *   (Linux; elsewhere such a path is ENAMETOOLONG, and reported).
 */
import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync } from 'node:fs'
import { Problem } from '../../protocol/problem.ts'
import type { Attributes } from '../../protocol/schema.ts'
import { setAttributes } from './attributes.ts'

/** PATH_MAX is 4096 with the NUL; a temporary name is shorter than the longest name, 255. */
const maxDirectPathBytes = 3800
const slash = Buffer.from('/')

export type AttributesFailed = (directory: RestoredDirectory, error: unknown) => void

export class RestoredDirectory {
  /** Made by this run: nothing can stand in it yet. */
  readonly fresh: boolean
  /** The path below the destination, for people; empty for the root. */
  readonly shownPath: Buffer
  /** A path that the kernel takes, valid until the directory is done. */
  readonly path: Buffer
  /** The same, for messages to threads. */
  readonly latin1Path: string
  readonly #rootPath: Buffer
  readonly #parent: RestoredDirectory | undefined
  readonly #attributes: Attributes | undefined
  readonly #failed: AttributesFailed
  readonly #fd: number | undefined
  /** Descriptors open anywhere in the tree, so that a run that is given up can close them. */
  readonly #descriptors: Set<number>
  /** What is still to be done below, and one for the listing itself. */
  #pending = 1

  private constructor(fields: {
    fresh: boolean
    shownPath: Buffer
    path: Buffer
    parent: RestoredDirectory | undefined
    attributes: Attributes | undefined
    failed: AttributesFailed
  }) {
    this.fresh = fields.fresh
    this.shownPath = fields.shownPath
    this.#parent = fields.parent
    this.#attributes = fields.attributes
    this.#failed = fields.failed
    this.#rootPath = fields.parent === undefined ? fields.path : fields.parent.#rootPath
    this.#descriptors = fields.parent === undefined ? new Set() : fields.parent.#descriptors
    if (fields.path.length > maxDirectPathBytes && process.platform === 'linux') {
      const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants
      this.#fd = openSync(fields.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      this.#descriptors.add(this.#fd)
      // With the dot it names the directory, not the link to it that stands in /proc.
      this.path = Buffer.from(`/proc/self/fd/${this.#fd}/.`)
    } else {
      this.path = fields.path
    }
    this.latin1Path = this.path.toString('latin1')
    this.#parent?.begin()
  }

  /** The destination itself, which exists. With `attributes` it gets them in the end. */
  static root(path: Buffer, attributes: Attributes | undefined, failed: AttributesFailed): RestoredDirectory {
    const shownPath = Buffer.alloc(0)
    return new RestoredDirectory({ fresh: false, shownPath, path, parent: undefined, attributes, failed })
  }

  /** Makes the directory `name`, or takes the one that is there. Problems `unsafe-path`, `destination-exists`. */
  enter(name: Buffer, attributes: Attributes): RestoredDirectory {
    const path = this.pathOf(name)
    const fresh = makeDirectory(path)
    if (!fresh) makeWritable(path)
    const shownPath = this.shownPathOf(name)
    return new RestoredDirectory({ fresh, shownPath, path, parent: this, attributes, failed: this.#failed })
  }

  /** The path of `name` in it, for the kernel. */
  pathOf(name: Buffer): Buffer {
    return Buffer.concat([this.path, slash, name])
  }

  /** The absolute path of `name`, of any length. */
  absolutePathOf(name: Buffer): Buffer {
    return Buffer.concat([this.#rootPath, slash, this.shownPathOf(name)])
  }

  /** The path of `name` below the destination. */
  shownPathOf(name: Buffer): Buffer {
    return this.shownPath.length === 0 ? name : Buffer.concat([this.shownPath, slash, name])
  }

  /** Something below is to be done: its attributes wait for it. */
  begin(): void {
    this.#pending++
  }

  /** Something below is done, or its listing is. The last one sets the attributes. */
  done(): void {
    if (--this.#pending > 0) return
    try {
      if (this.#attributes !== undefined) setAttributes(this.path, 'directory', this.#attributes)
    } catch (error) {
      this.#failed(this, error)
    }
    if (this.#fd !== undefined && this.#descriptors.delete(this.#fd)) closeSync(this.#fd)
    this.#parent?.done()
  }

  /** Closes what the tree holds open, when the work is given up. Nothing in it may be used again. */
  abandon(): void {
    for (const fd of this.#descriptors) closeSync(fd)
    this.#descriptors.clear()
  }
}

/** True when it was made, false when it was there. */
function makeDirectory(path: Buffer): boolean {
  try {
    mkdirSync(path, 0o700)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const stats = lstatSync(path)
    if (stats.isDirectory()) return false
    const cause = { cause: error }
    if (stats.isSymbolicLink()) {
      throw new Problem('unsafe-path', 'a symlink stands where a directory must go; remove it first', cause)
    }
    throw new Problem('destination-exists', 'a file stands where a directory must go; remove it first', cause)
  }
}

/** An earlier run may have finished it with a mode that forbids its owner to write. */
function makeWritable(path: Buffer): void {
  const stats = lstatSync(path)
  if ((stats.mode & 0o700) !== 0o700 && stats.uid === process.geteuid?.())
    chmodSync(path, (stats.mode & 0o7777) | 0o700)
}
