#!/usr/bin/env node
/**
 * The program `chunkdav`: checks that this Node can run it, and picks the part that does the work. What
 * is written here must run on older versions too, so that they get a clear line instead of a syntax error.
 */
import { lstatSync, mkdirSync } from 'node:fs'
import * as nodeModule from 'node:module'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { setFlagsFromString } from 'node:v8'

const neededMajor = 24
const serverCommands = ['serve', 'reindex', 'doctor', 'user', 'token']

if (Number(process.versions.node.split('.')[0]) < neededMajor) {
  process.stderr.write(
    `chunkdav: Node.js ${neededMajor} or newer is needed, this is ${process.version}; ` +
      'get it from https://nodejs.org/en/download. In a checkout "npm ci" brings it, for "npm run -s chunkdav -- …"\n',
  )
  process.exitCode = 1
} else {
  const given = process.argv.slice(2)
  const about = given[0] === 'help' ? given[1] || '' : ''
  const words = serverCommands.includes(about) ? [about, '--help'] : given
  const isServer = serverCommands.includes(words[0] || '')
  if (isServer) tuneServer()
  keepCompiledCode()
  const scanning = words[0] === 'backup' ? await import('./sources/scan-thread.ts') : undefined
  scanning?.startScanThread()
  const { main } = await (isServer ? import('../server/main.ts') : import('./cli.ts'))
  await main(words)
  // The process would not end while it waits for its work.
  await scanning?.stopScanThread()
}

/** What a backup and a restore set for themselves, when they are at work: v8-tuning.ts. */
function tuneServer(): void {
  // By default V8 collects garbage at every 32 MiB of new buffers, however little of it there is: a third of all
  // processor time (measured). Buffers count towards the heap's own limit instead.
  setFlagsFromString('--external-memory-accounted-in-global-limit')
  // And the heap may double before it is collected, instead of fourfold: by half alone takes a twentieth more time.
  setFlagsFromString('--heap-growing-percent=100')
  // Bodies come in buffers of 64 KiB that die young. A nursery that does not grow is collected often, and they go with
  // it; else they wait for a full collection, which holds the event loop (p99 2.4 ms instead of 8.7).
  setFlagsFromString('--semi-space-growth-factor=1')
  // Of so little, several threads have more work than one.
  setFlagsFromString('--no-parallel-scavenge')
}

/**
 * Lets Node keep what V8 compiles: the next start takes 30 ms less. In a folder that belongs to whoever runs this and that
 * nobody else may write to, since what is in it is run; Node's own choice is one below /tmp. Where there is no such folder,
 * and none can be made, everything is compiled each time.
 */
function keepCompiledCode(): void {
  try {
    // There may be none: of a user whom the system does not list, where the environment names none either.
    const home = homedir()
    if (!isAbsolute(home)) return
    const caches = process.platform === 'darwin' ? 'Library/Caches' : '.cache'
    const folder = join(home, caches, 'chunkdav', 'code')
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const { uid, mode } = lstatSync(folder)
    if (uid !== process.getuid?.() || (mode & 0o22) !== 0) return
    nodeModule.enableCompileCache(folder)
    // For the threads.
    process.env.NODE_COMPILE_CACHE ??= folder
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
  }
}
