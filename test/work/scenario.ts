/**
 * The work that is counted, step by step, done by a receiver and clients that are processes of their own, as people
 * start them. Each step gives counts by name.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ReceiverClient } from '../../client/receiver-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { splitBatch } from '../../protocol/block.ts'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import type { FileEntry } from '../../protocol/schema.ts'
import { temporaryFolder } from '../support/tree.ts'
import { batchOf, type Chunk, changeOne, chunksOf, makeTree } from './inputs.ts'
import {
  type CallsByPlace,
  countCalls,
  hasStrace,
  spawnTraced,
  traceEnd,
  traceLength,
} from './system-calls.ts'

/** What one step took. */
export type Counts = Readonly<Record<string, number>>
export type Steps = Readonly<Record<string, Counts>>

const repository = new URL('../..', import.meta.url).pathname.replace(/\/$/, '')
const program = join(repository, 'client', 'bin.ts')
const quietMs = 100
/** Of what `--json` tells. */
const toldCounts = ['requests', 'chunksSent', 'chunksReused', 'bytesSent', 'bytesReceived']
/** What is counted where strace is not. */
export const untracedNames: ReadonlySet<string> = new Set([
  ...toldCounts.map((name) => `client ${name}`),
  'receiver bytesCopied',
])

interface Place {
  readonly root: string
  readonly tree: string
  readonly restored: string
  readonly data: string
  readonly state: string
  traces: number
}

/** Does all the steps once, in order. */
export async function runScenario(): Promise<Steps> {
  await using folder = await temporaryFolder()
  const root = folder.path
  const at = (name: string): string => join(root, name)
  const place = {
    root,
    tree: at('tree'),
    restored: at('restored'),
    data: at('data'),
    state: at('state'),
    traces: 0,
  }
  makeTree(place.tree)
  mkdirSync(place.data)
  await using receiver = await startReceiver(place)
  const steps: Record<string, Counts> = {}
  const vaultUrl = `${receiver.url}/home`
  const backup = ['backup', place.tree, vaultUrl, '--source', 'tree', '--json']
  const ofClient = (words: readonly string[]) => () => runClient(place, words)
  steps['first backup'] = await receiver.during(ofClient(backup))
  steps['unchanged backup'] = await receiver.during(ofClient(backup))
  changeOne(place.tree)
  steps['backup of one changed file'] = await receiver.during(ofClient(backup))
  const restore = ['restore', vaultUrl, '--source', 'tree', '--to', place.restored, '--json']
  steps.restore = await receiver.during(ofClient(restore))

  const ofRequests = (work: (client: ReceiverClient) => Promise<unknown>) => async () => {
    await using client = disposable(new ReceiverClient(parseVaultUrl(vaultUrl), { connections: 1 }))
    await work(client.value)
    return {}
  }
  const single = chunksOf('single', 64, 16 * 1024)
  steps['64 PUTs'] = await receiver.during(
    ofRequests(async (client) => {
      for (const { id, bytes } of single) await client.putChunk(id, bytes)
    }),
  )
  const many = chunksOf('many', 1000, 4096)
  const blocks = splitBatch(await batchOf(many))
  steps['batch of 1,000 chunks'] = await receiver.during(ofRequests((client) => client.putBatch(blocks)))
  let commit = async (_: ReceiverClient): Promise<unknown> => undefined
  await receiver.during(
    ofRequests(async (client) => {
      const { id, bytes } = directoryOf([...single, ...many])
      await client.putDirectory(id, bytes)
      const { source, number } = await client.openCheckpoint('chunks', { kind: 'dir' })
      commit = (client) => client.commitCheckpoint({ source, number }, { root: id })
    }),
  )
  steps.commit = await receiver.during(ofRequests((client) => commit(client)))
  return steps
}

function disposable<T extends { close(): Promise<void> }>(value: T): AsyncDisposable & { readonly value: T } {
  return { value, [Symbol.asyncDispose]: () => value.close() }
}

function directoryOf(chunks: readonly Chunk[]): { id: Chunk['id']; bytes: Buffer } {
  const entries = chunks.map(({ id, bytes }, i): FileEntry => {
    const name = String(i).padStart(5, '0')
    return {
      name,
      kind: 'file',
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtimeNs: '0',
      id,
      size: bytes.length,
    } as FileEntry
  })
  return encodeDirectoryObject(entries)
}

// -- the client -----------------------------------------------------------------------------------------

/** Runs one command, and says what it took. */
async function runClient(place: Place, words: readonly string[]): Promise<Counts> {
  const trace = join(place.root, `client-${place.traces++}.trace`)
  const child = start(trace, words, { HOME: place.root, CHUNKDAV_STATE_DIR: place.state })
  const [out, err] = [collect(child.stdout), collect(child.stderr)]
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`${words[0]} ended with ${code}: ${out.text} ${err.text}`)
  const summary = JSON.parse(out.text.trimEnd().split('\n').at(-1) as string) as Record<string, number>
  const counts: Record<string, number> = {}
  for (const name of toldCounts) {
    if (summary[name] !== undefined) counts[`client ${name}`] = summary[name]
  }
  if (!hasStrace) return counts
  const folders = {
    [place.tree]: 'tree',
    [place.restored]: 'restored',
    [place.state]: 'database',
    // One step in a directory that is held open.
    '/proc/self/fd': words[0] === 'restore' ? 'restored' : 'tree',
    [repository]: 'modules',
    // It may be a link to that of another checkout.
    [realpathSync(join(repository, 'node_modules'))]: 'modules',
  }
  const end = await traceEnd(trace, child.pid as number)
  return { ...counts, ...named('client', await countCalls(trace, [0, end], folders)) }
}

function start(trace: string, words: readonly string[], more: NodeJS.ProcessEnv): ChildProcess {
  // Nothing of the shell's: NODE_EXTRA_CA_CERTS alone has every process read a long file.
  const env = { PATH: process.env.PATH, TZ: 'UTC', ...more }
  const command = ['taskset', '-c', twoProcessors(), process.execPath, program, ...words] as const
  if (hasStrace) return spawnTraced(trace, command, env)
  return spawn(command[0], command.slice(1), { env, stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Two that this process may use: how many threads there are depends on how many processors there are. */
function twoProcessors(): string {
  const status = readFileSync('/proc/self/status', 'latin1')
  const ranges = (/^Cpus_allowed_list:\s+(\S+)/m.exec(status)?.[1] ?? '').split(',')
  const numbers = ranges.flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: Math.min(2, last - first + 1) }, (_, i) => first + i)
  })
  return numbers.slice(0, 2).join(',')
}

function collect(stream: NodeJS.ReadableStream | null): { text: string } {
  const collected = { text: '' }
  stream?.on('data', (piece: Buffer) => {
    collected.text += piece
  })
  return collected
}

// -- the receiver ---------------------------------------------------------------------------------------

interface RunningReceiver extends AsyncDisposable {
  readonly url: string
  /** What `work` took, as it says, and what the receiver did meanwhile. */
  during(work: () => Promise<Counts>): Promise<Counts>
}

async function startReceiver(place: Place): Promise<RunningReceiver> {
  const trace = join(place.root, 'receiver.trace')
  const child = start(
    trace,
    ['serve', '--data', place.data, '--listen', '127.0.0.1:0', '--gc', '0 0 29 2 *'],
    // What it has compiled is kept there: in whoever's home this is, it would be there or not.
    { HOME: join(place.root, 'home of the receiver') },
  )
  const [out, err] = [collect(child.stdout), collect(child.stderr)]
  while (!/^data is in /m.test(out.text)) {
    if (child.exitCode !== null) throw new Error(`the receiver did not start: ${err.text}`)
    await sleep(10)
  }
  const vault = join(place.data, 'vaults', 'home')
  const folders = {
    [join(vault, 'packs')]: 'packs',
    [join(vault, 'index')]: 'index',
    [join(vault, 'checkpoints')]: 'checkpoints',
  }
  await quiet(child.pid as number)
  return {
    url: /^chunkdav listens on (\S+)/m.exec(out.text)?.[1] ?? '',
    during: async (work) => {
      const pid = child.pid as number
      const [before, first] = [copied(pid), hasStrace ? await traceLength(trace) : 0]
      const ofWork = await work()
      await quiet(pid)
      const counts = { ...ofWork, 'receiver bytesCopied': copied(pid) - before }
      if (!hasStrace) return counts
      const end = await traceLength(trace)
      return { ...counts, ...named('receiver', await countCalls(trace, [first, end], folders)) }
    },
    [Symbol.asyncDispose]: async () => {
      const ended = new Promise((resolve) => child.once('close', resolve))
      child.kill('SIGTERM')
      await ended
    },
  }
}

/** Bytes that went through read and write calls of any kind: proc(5). */
function copied(pid: number): number {
  const io = readFileSync(`/proc/${pid}/io`, 'latin1')
  const of = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)?.[1])
  return of('rchar') + of('wchar')
}

/**
 * What is done after the answer belongs to the step too: waits until nothing is read or written for a while. A thread that
 * does not sleep waits for a processor, or for a sync, which may take longer than any while.
 */
async function quiet(pid: number): Promise<void> {
  for (let last = copied(pid), since = performance.now(); performance.now() - since < quietMs; ) {
    await sleep(10)
    const now = copied(pid)
    if (now !== last || !isAsleep(pid)) since = performance.now()
    last = now
  }
}

/** Whether all threads wait for something to come: state S of proc(5). */
function isAsleep(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    try {
      return /^State:\tS/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1'))
    } catch (error) {
      // It may end while it is looked at.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
      return true
    }
  })
}

function named(process: 'client' | 'receiver', places: CallsByPlace): Counts {
  const counts: Record<string, number> = {}
  for (const [name, { calls, syncs, bytesRead, bytesWritten }] of places) {
    const of = `${process} ${name}`
    counts[`${of} calls`] = calls
    // Of modules the number of calls says it all, and what they have is longer by every comment.
    if (name === 'modules') continue
    if (syncs > 0) counts[`${of} syncs`] = syncs
    if (bytesRead > 0) counts[`${of} bytesRead`] = bytesRead
    if (bytesWritten > 0) counts[`${of} bytesWritten`] = bytesWritten
  }
  return counts
}
