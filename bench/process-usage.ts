/** What a process has used, as proc(5) tells it from outside: nothing is loaded into it, and it may be any program. */
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Usage {
  /** Peak of resident memory. */
  readonly peakBytes: number
  readonly cpuSeconds: number
}

/** As of now; undefined when the process is no more. */
export function usageOf(pid: number): Usage | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const peak = /^VmHWM:\s+(\d+) kB/m.exec(status)
    // One that has ended and is not waited for yet has no memory.
    if (peak === null) return undefined
    // Behind the name, which may hold anything: utime and stime are fields 14 and 15, in ticks of 10 ms.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return {
      peakBytes: 1024 * Number(peak[1]),
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100,
    }
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

/** Looks at it until it ends, a hundred times a second; that much of its end is missed. */
export function watchUsage(child: ChildProcess): () => Usage {
  let last: Usage = { peakBytes: 0, cpuSeconds: 0 }
  const look = (): void => {
    last = usageOf(child.pid as number) ?? last
  }
  const timer = setInterval(look, 10)
  child.once('exit', () => clearInterval(timer))
  return () => last
}
