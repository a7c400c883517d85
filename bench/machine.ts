/** Where it was measured, in a few lines. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem, version } from 'node:os'

export interface Machine {
  readonly processor: string
  readonly cores: number
  readonly memoryBytes: number
  readonly system: string
  /** Of the work folder. */
  readonly disk: string
  readonly node: string
  /** As `commitNow` says. */
  readonly commit: string
}

export function describeMachine(work: string): Machine {
  const osRelease = readFileSync('/etc/os-release', 'utf8')
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    system: `${/^PRETTY_NAME="(.*)"/m.exec(osRelease)?.[1] ?? ''}, Linux ${release()} (${version()})`,
    disk: said('findmnt', '-n', '-o', 'SOURCE,FSTYPE,OPTIONS', '-T', work).replace(/\s+/g, ' '),
    node: process.versions.node,
    commit: commitNow(),
  }
}

/** The commit, with `+` when the product's files differ from it; empty outside of a checkout. */
export function commitNow(): string {
  const changed = said('git', 'status', '--porcelain', '-uno', '--', 'client', 'protocol', 'server')
  return `${said('git', 'rev-parse', '--short', 'HEAD')}${changed === '' ? '' : '+'}`
}

/** Empty where the program is absent, or cannot say: the report can do without. */
function said(program: string, ...args: string[]): string {
  try {
    const cwd = new URL('..', import.meta.url).pathname
    return execFileSync(program, args, { encoding: 'utf8', cwd, stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as { status?: number }).status) return ''
    throw error
  }
}
