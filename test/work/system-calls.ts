/**
 * What a process asks of the system, counted by what it is asked about: strace writes each call to a file before the
 * process goes on, so whatever was done before an answer stands in the file when the answer is here.
 *
 * Left out is what depends on the hour: waiting (futex, epoll), waking threads (eventfd), memory, and Node's own
 * files. What is looked at is the files below some folders, and sockets of TCP.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { open, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

const traced = [
  '%file,close,fstat,getdents64,lseek,fcntl,flock,ftruncate,fallocate,fchmod,fchown',
  'read,readv,pread64,preadv,preadv2,write,writev,pwrite64,pwritev,pwritev2',
  'sendfile,splice,copy_file_range,io_uring_enter,fsync,fdatasync,sync_file_range,syncfs,sync',
  'accept4,connect,shutdown,socket,sendto,sendmsg,sendmmsg,recvfrom,recvmsg,getsockopt,setsockopt',
].join(',')

/** Whether strace is there and may look at processes; in some containers it may not. */
export const hasStrace =
  process.platform === 'linux' && spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', 'true']).status === 0

/** Runs a program, and writes what it asks of the system to a file. The child is the program itself. */
export function spawnTraced(file: string, command: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const options = ['-D', '-f', '--seccomp-bpf', '-yy', '-q', '-s', '0', '-e', 'signal=none']
  return spawn('strace', [...options, '-e', `trace=${traced}`, '-o', file, '--', ...command], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** Waits until the file has the end of a process that is over. */
export async function traceEnd(file: string, pid: number): Promise<number> {
  const ended = new RegExp(`^${pid} +\\+\\+\\+ `, 'm')
  for (;;) {
    const length = await traceLength(file)
    if (ended.test(await readPart(file, Math.max(0, length - 2000), length))) return length
    await sleep(10)
  }
}

/** What has been written so far. */
export async function traceLength(file: string): Promise<number> {
  return (await stat(file)).size
}

async function readPart(file: string, first: number, end: number): Promise<string> {
  await using handle = await open(file, 'r')
  const bytes = Buffer.alloc(end - first)
  await handle.read(bytes, 0, bytes.length, first)
  return bytes.toString('latin1')
}

export interface Calls {
  calls: number
  /** fsync and fdatasync. */
  syncs: number
  bytesRead: number
  bytesWritten: number
}

/** What the calls were about: a folder's name, or `sockets`. */
export type CallsByPlace = ReadonlyMap<string, Calls>

const reading = new Set(['read', 'readv', 'pread64', 'preadv', 'preadv2', 'recvfrom', 'recvmsg'])
const writing = new Set(['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2', 'sendto', 'sendmsg'])
const syncing = new Set(['fsync', 'fdatasync', 'syncfs', 'sync'])

/** The name of each folder that is looked at; of those that hold a path, the longest counts. */
export type Folders = Readonly<Record<string, string>>

/** Counts the calls between two places of a trace. */
export async function countCalls(
  file: string,
  [first, end]: readonly [number, number],
  folders: Folders,
): Promise<CallsByPlace> {
  return parseCalls(await readPart(file, first, end), folders)
}

/** The same of the lines of a trace. */
export function parseCalls(trace: string, folders: Folders): CallsByPlace {
  const places = new Map<string, Calls>()
  /** Calls that another thread's came between, by thread. */
  const unfinished = new Map<string, { name: string; place: Calls }>()
  const count = (name: string, place: Calls, rest: string): void => {
    const result = Number(/ = (-?\d+)[^=]*$/.exec(rest)?.[1] ?? 0)
    if (reading.has(name)) place.bytesRead += Math.max(0, result)
    if (writing.has(name)) place.bytesWritten += Math.max(0, result)
  }
  for (const line of trace.split('\n')) {
    const [, thread = '', resumed, started, rest = ''] =
      /^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$/.exec(line) ?? []
    if (resumed !== undefined) {
      const call = unfinished.get(thread)
      unfinished.delete(thread)
      if (call !== undefined) count(call.name, call.place, rest)
    }
    const name = placeOf(rest, folders)
    if (started === undefined || name === undefined) continue
    const place = places.get(name) ?? { calls: 0, syncs: 0, bytesRead: 0, bytesWritten: 0 }
    places.set(name, place)
    place.calls++
    if (syncing.has(started)) place.syncs++
    if (rest.endsWith('<unfinished ...>')) unfinished.set(thread, { name: started, place })
    else count(started, place, rest)
  }
  return places
}

/** What a call is about, from its arguments: `17</a/file>, …`, `AT_FDCWD</a>, "file", …` or `"/a/file", …`. */
function placeOf(call: string, folders: Folders): string | undefined {
  const [, descriptor, ofDescriptor = '', path] = /^(?:(\w+)<([^>]*)>)?(?:, )?(?:"([^"]*)")?/.exec(call) ?? []
  if (/^TCP/.test(ofDescriptor)) return 'sockets'
  const isRelative = path !== undefined && !path.startsWith('/')
  const full =
    descriptor === undefined ? path : isRelative ? `${ofDescriptor}/${path}` : (path ?? ofDescriptor)
  let found = ''
  for (const folder of Object.keys(folders)) {
    const isIn = full === folder || full?.startsWith(`${folder}/`)
    if (isIn && folder.length > found.length) found = folder
  }
  return folders[found]
}
