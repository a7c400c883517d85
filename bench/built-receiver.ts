/** `chunkdav serve` from dist/, as a user has it, looked at from outside. */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endProcess, readIfThere } from '../test/support/dav-servers.ts'

export const builtProgram = new URL('../dist/client/bin.js', import.meta.url).pathname

export interface BuiltReceiver extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Of the process so far: peak of resident memory in bytes, seconds of CPU. */
  usage(): Promise<{ peakBytes: number; cpuSeconds: number }>
}

/** Serves `folder`/data. What it says goes to files beside that, and so costs nobody else anything. */
export async function startBuiltReceiver(folder: string): Promise<BuiltReceiver> {
  await mkdir(folder, { recursive: true })
  const dataDir = join(folder, 'data')
  const [out, log] = [join(folder, 'greeting'), join(folder, 'log')]
  const files = [openSync(out, 'w'), openSync(log, 'w')]
  const args = [builtProgram, 'serve', '--data', dataDir, '--listen', '127.0.0.1:0']
  const child = spawn(process.execPath, args, { stdio: ['ignore', ...files] })
  for (const file of files) closeSync(file)
  let url: string | undefined
  while (url === undefined) {
    if (child.exitCode !== null) throw new Error(`the receiver did not start: ${await readIfThere(log)}`)
    await sleep(10)
    url = /http:\/\/127\.0\.0\.1:\d+/.exec(await readIfThere(out))?.[0]
  }
  return {
    url,
    port: Number(new URL(url).port),
    dataDir,
    usage: () => usageOf(child.pid as number),
    [Symbol.asyncDispose]: () => endProcess(child),
  }
}

/** What proc(5) tells of a process that runs. */
async function usageOf(pid: number): Promise<{ peakBytes: number; cpuSeconds: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const peakBytes = 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1])
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  // Behind the name, which may hold anything: utime and stime are fields 14 and 15, in ticks of 10 ms.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { peakBytes, cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100 }
}
