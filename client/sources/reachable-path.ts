/**
 * Paths longer than the kernel takes in one call. Byte strings (latin1) throughout, since names need
 * not be UTF-8. A long path is walked in strides: each stride opens a directory, and the next one starts
 * at /proc/self/fd/N, which is what openat(2) would do. Linux only; elsewhere a long path fails with
 * ENAMETOOLONG, which callers report like any other.
 */
import { closeSync, constants, openSync } from 'node:fs'

/** PATH_MAX is 4096 with the NUL; a stride leaves room for one more name. */
const maxStrideBytes = 3800

/** A path as the `fs` functions take it. The file system's root is the empty path: what is below it begins with a slash. */
export function fsPath(path: string): Buffer {
  return Buffer.from(path === '' ? '/' : path, 'latin1')
}

export interface Reached {
  /** A path to the same file that the kernel takes. */
  readonly path: string
  /** Gives back what was opened on the way; the path is void from then on. */
  close(): void
}

const direct = (path: string): Reached => ({ path, close() {} })

/** A short enough path to what stands at `path`, an absolute byte string. Throws what `open` throws. */
export function reach(path: string): Reached {
  if (path.length <= maxStrideBytes) return direct(path)
  let fd: number | undefined
  let rest = path
  while (rest.length > maxStrideBytes) {
    const cut = rest.lastIndexOf('/', maxStrideBytes)
    if (cut <= 0) break
    const next = openSync(fsPath(rest.slice(0, cut)), constants.O_RDONLY | constants.O_DIRECTORY)
    if (fd !== undefined) closeSync(fd)
    fd = next
    rest = `/proc/self/fd/${fd}${rest.slice(cut)}`
  }
  const open = fd
  return {
    path: rest,
    close() {
      if (open !== undefined) closeSync(open)
    },
  }
}
