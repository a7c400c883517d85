/** `chunkdav serve` from dist/, as a user has it, looked at from outside. */
import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endProcess, readIfThere } from '../test/support/dav-servers.ts'
import { type Usage, usageOf } from './process-usage.ts'

export const builtProgram = new URL('../dist/client/bin.js', import.meta.url).pathname

export interface BuiltReceiver extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Of the process so far. */
  usage(): Usage
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
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`the receiver did not start: ${await readIfThere(log)}`)
    }
    await sleep(10)
    url = /http:\/\/127\.0\.0\.1:\d+/.exec(await readIfThere(out))?.[0]
  }
  return {
    url,
    port: Number(new URL(url).port),
    dataDir,
    usage: () => {
      const usage = usageOf(child.pid as number)
      if (usage === undefined) throw new Error('the receiver has ended')
      return usage
    },
    [Symbol.asyncDispose]: () => endProcess(child),
  }
}
