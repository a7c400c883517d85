/**
 * However a run ends, but for SIGKILL, nothing that it started outlives it, and its scratch is gone. It is done while the
 * process exits, so that there is one way for signals, errors that nobody caught and the end itself.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
/** How long processes that were killed are waited for: one may stand in a sync. */
const endMs = 10_000

interface Scratch {
  readonly folder: string
  /** Of what may be removed there. */
  readonly names: RegExp
}

export function leaveNothing(scratch?: Scratch): void {
  for (const [signal, code] of Object.entries(codes)) {
    // Not once: npm and timeout hand on what the terminal or they themselves have sent already, and the second would end us at once.
    process.on(signal, () => process.exit(code))
  }
  process.once('exit', () => {
    endDescendants()
    if (scratch !== undefined) removeAll(scratch)
  })
}

function removeAll({ folder, names }: Scratch): void {
  for (const name of readdirSync(folder).filter((each) => names.test(each))) {
    rmSync(join(folder, name), { recursive: true, force: true, maxRetries: 10 })
  }
}

/** Stops them all before the first is ended: one that runs may start another, and whose parent has ended is found no more. */
function endDescendants(): void {
  const stopped = new Set<number>()
  for (let found = descendants(); found.some((pid) => !stopped.has(pid)); found = descendants()) {
    for (const pid of found) {
      send(pid, 'SIGSTOP')
      stopped.add(pid)
    }
  }
  for (const pid of stopped) send(pid, 'SIGKILL')
  // Not those that are still below us: whose parent has ended before is no more.
  for (const until = Date.now() + endMs; [...stopped].some(isRunning) && Date.now() < until; ) pause(10)
}

function isRunning(pid: number): boolean {
  return statOf(pid) !== undefined
}

/** The ids of all that run below this process, parents first. */
function descendants(): number[] {
  const parentOf = new Map<number, number>()
  for (const pid of readdirSync('/proc').map(Number).filter(Number.isInteger)) {
    const stat = statOf(pid)
    if (stat !== undefined) parentOf.set(pid, stat.parent)
  }
  const found = [process.pid]
  for (const pid of found) for (const [child, parent] of parentOf) if (parent === pid) found.push(child)
  return found.slice(1)
}

/** Who started it; undefined when it has ended. */
function statOf(pid: number): { readonly parent: number } | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch (error) {
    // It may end while it is read.
    if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    return undefined
  }
  // Behind the name, which may hold anything. Z has ended, and is not waited for yet.
  const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return state === 'Z' ? undefined : { parent: Number(parent) }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Nothing asynchronous is done any more while a process exits. */
function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}
