/**
 * What Node lacks, from the C library of the running process, through koffi: times in nanoseconds (of
 * symlinks too), fifos, device nodes, waiting for a pipe. Linux and macOS. Paths are bytes, without NUL. Failures are
 * Error objects as node:fs throws them: `code`, `errno`, `syscall`, `path`. Where koffi does not load,
 * `posixAvailable()` is false: times are then set through node:fs, rounded to what a double holds, and
 * the rest fails with ENOSYS.
 */
import { futimesSync, lutimesSync } from 'node:fs'
import { createRequire } from 'node:module'
import { getSystemErrorName } from 'node:util'

interface Library {
  utimensat(directory: number, path: Uint8Array, times: BigInt64Array, flags: number): number
  futimens(file: number, times: BigInt64Array): number
  mkfifo(path: Uint8Array, mode: number): number
  mknod: ((path: Uint8Array, mode: number, device: bigint) => number) | undefined
  poll(requests: Uint8Array, count: number, timeoutMs: number): number
  errno(): number
}

interface Koffi {
  load(path: null): { func(definition: string): unknown }
  errno(): number
}

const isMac = process.platform === 'darwin'
/** From <fcntl.h>, <sys/stat.h> and <unistd.h> of Linux and of macOS. */
const constants = isMac
  ? { currentDirectory: -2, noFollow: 0x20, omit: -2n }
  : { currentDirectory: -100, noFollow: 0x100, omit: 0x3ffffffen }
const typeBits = { 'character-device': 0o020000, 'block-device': 0o060000 } as const

let loaded: Library | null | undefined

function library(): Library | null {
  if (loaded === undefined) loaded = load()
  return loaded
}

function load(): Library | null {
  if (process.platform !== 'linux' && !isMac) return null
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi
    const libc = koffi.load(null)
    const modeType = isMac ? 'uint16_t' : 'uint32_t'
    const deviceType = isMac ? 'int32_t' : 'uint64_t'
    return {
      utimensat: libc.func('int utimensat(int, const uint8_t*, const int64_t*, int)') as Library['utimensat'],
      futimens: libc.func('int futimens(int, const int64_t*)') as Library['futimens'],
      mkfifo: libc.func(`int mkfifo(const uint8_t*, ${modeType})`) as Library['mkfifo'],
      mknod: optional(() => libc.func(`int mknod(const uint8_t*, ${modeType}, ${deviceType})`)),
      poll: libc.func(
        `int poll(uint8_t*, ${isMac ? 'unsigned int' : 'unsigned long'}, int)`,
      ) as Library['poll'],
      errno: () => koffi.errno(),
    }
  } catch (error) {
    // No prebuilt binary for this platform, or a C library without these symbols.
    if (error instanceof Error) return null
    throw error
  }
}

/** glibc before 2.33 has no `mknod` to link to. */
function optional(find: () => unknown): Library['mknod'] {
  try {
    return find() as Library['mknod']
  } catch (error) {
    if (error instanceof Error) return undefined
    throw error
  }
}

/** Whether nanoseconds, fifos and devices are to be had here. */
export function posixAvailable(): boolean {
  return library() !== null
}

function failure(errno: number, syscall: string, path?: Buffer): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno)
  const place = path === undefined ? '' : ` '${path}'`
  const error: NodeJS.ErrnoException = new Error(`${code}: ${syscall}${place}`)
  return Object.assign(
    error,
    { code, errno: -errno, syscall },
    path === undefined ? {} : { path: String(path) },
  )
}

function unsupported(syscall: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`ENOSYS: ${syscall} is not to be had on this platform`), {
    code: 'ENOSYS',
    syscall,
  })
}

function terminated(path: Buffer): Buffer {
  if (path.includes(0)) throw new TypeError('a path holds NUL')
  const bytes = Buffer.alloc(path.length + 1)
  path.copy(bytes)
  return bytes
}

/**
 * Sets the modification time of what is at `path`, of a symlink itself; the access time stays. Returns
 * false when it had to be rounded (koffi is not there): to about a microsecond.
 */
export function setModificationTime(path: Buffer, mtimeNs: bigint): boolean {
  const libc = library()
  if (libc === null) {
    const seconds = Number(mtimeNs) / 1e9
    lutimesSync(path, seconds, seconds)
    return false
  }
  const times = timesOf(mtimeNs)
  const { currentDirectory, noFollow } = constants
  if (libc.utimensat(currentDirectory, terminated(path), times, noFollow) !== 0) {
    throw failure(libc.errno(), 'utimensat', path)
  }
  return true
}

/** As `setModificationTime`, of an open file: nothing is looked up. */
export function setFileTime(fd: number, mtimeNs: bigint): boolean {
  const libc = library()
  if (libc === null) {
    const seconds = Number(mtimeNs) / 1e9
    futimesSync(fd, seconds, seconds)
    return false
  }
  if (libc.futimens(fd, timesOf(mtimeNs)) !== 0) throw failure(libc.errno(), 'futimens')
  return true
}

/** Two `struct timespec`: the access time is left as it is. */
function timesOf(mtimeNs: bigint): BigInt64Array {
  // Nanoseconds count upwards within a second, before 1970 too.
  const nanoseconds = ((mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  return BigInt64Array.of(0n, constants.omit, (mtimeNs - nanoseconds) / 1_000_000_000n, nanoseconds)
}

/** Makes a fifo; its mode is cut by the umask. */
export function makeFifo(path: Buffer, mode: number): void {
  const libc = library()
  if (libc === null) throw unsupported('mkfifo')
  if (libc.mkfifo(terminated(path), mode) !== 0) throw failure(libc.errno(), 'mkfifo', path)
}

/** Makes a device node, which only root may; its mode is cut by the umask. */
export function makeDevice(
  path: Buffer,
  mode: number,
  kind: 'character-device' | 'block-device',
  major: number,
  minor: number,
): void {
  const libc = library()
  if (libc?.mknod === undefined) throw unsupported('mknod')
  if (libc.mknod(terminated(path), typeBits[kind] | mode, deviceNumber(major, minor)) !== 0) {
    throw failure(libc.errno(), 'mknod', path)
  }
}

/** What `stat` calls `rdev`: `makedev` of <sys/sysmacros.h> (Linux) and <sys/types.h> (macOS). */
export function deviceNumber(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)]
  if (isMac) return (high << 24n) | low
  return ((high & 0xfffn) << 8n) | (low & 0xffn) | ((low & ~0xffn) << 12n) | ((high & ~0xfffn) << 32n)
}

/**
 * Waits up to `timeoutMs` until a read of `fd` would not block: there is something, or the end. False when
 * there is nothing yet. Without koffi true at once: the read itself waits then. Blocks the thread.
 */
export function waitReadable(fd: number, timeoutMs: number): boolean {
  const libc = library()
  if (libc === null) return true
  // struct pollfd: int fd, short events, short revents. POLLIN is 1 everywhere.
  const request = new Uint8Array(8)
  const view = new DataView(request.buffer)
  view.setInt32(0, fd, true)
  view.setInt16(4, 1, true)
  const ready = libc.poll(request, 1, timeoutMs)
  if (ready >= 0) return ready > 0
  const error = failure(libc.errno(), 'poll')
  if (error.code === 'EINTR') return false
  throw error
}
