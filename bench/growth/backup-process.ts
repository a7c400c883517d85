/** One backup by a process of its own, from dist/, as a user runs it: how long, and what both sides used. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../test/clients/run-program.ts'
import { endProcess } from '../../test/support/dav-servers.ts'
import { type BuiltReceiver, builtProgram } from '../built-receiver.ts'
import { type Usage, watchUsage } from '../process-usage.ts'

/** Of what `backup --json` tells last. */
export interface BackupSummary {
  readonly files: number
  readonly filesRead: number
  readonly bytesRead: number
  readonly bytesSent: number
}

export interface BackupReading {
  readonly seconds: number
  readonly client: Usage
  /** Its CPU for this backup alone; its peak since it was started. */
  readonly receiver: Usage
  readonly summary: BackupSummary
}

export interface Place {
  readonly receiver: BuiltReceiver
  /** For the client's state, and what is needed on the way. */
  readonly folder: string
}

export async function backUpFolder(path: string, place: Place): Promise<BackupReading> {
  return measured(place, () => client(path, place, 'ignore'))
}

const streamScript = new URL('seeded-stream.ts', import.meta.url).pathname

/** `seeded-stream BYTES | chunkdav backup - URL`. */
export async function backUpStream(bytes: number, place: Place): Promise<BackupReading> {
  const [readEnd, writeEnd] = await makePipe(place.folder)
  const stream = spawn(process.execPath, [streamScript, String(bytes)], {
    stdio: ['ignore', writeEnd, 'inherit'],
  })
  try {
    return await measured(place, () => {
      const child = client('-', place, readEnd)
      for (const end of [readEnd, writeEnd]) closeSync(end)
      return child
    })
  } finally {
    await endProcess(stream)
  }
}

/**
 * A pipe between two children, as a shell makes it: what Node makes for `stdio: 'pipe'` is a socket pair. Opened for both
 * first, so that opening either end waits for nobody.
 */
async function makePipe(folder: string): Promise<[readEnd: number, writeEnd: number]> {
  const path = join(mkdtempSync(join(folder, 'pipe-')), 'pipe')
  await run('mkfifo', [path])
  const both = openSync(path, constants.O_RDWR)
  const ends: [number, number] = [openSync(path, constants.O_RDONLY), openSync(path, constants.O_WRONLY)]
  closeSync(both)
  rmSync(path)
  return ends
}

function client(source: string, { receiver, folder }: Place, stdin: 'ignore' | number): ChildProcess {
  const args = [builtProgram, 'backup', '--json', '--source', 'growth', source, `${receiver.url}/growth`]
  const env = { ...process.env, XDG_STATE_HOME: join(folder, 'state') }
  return spawn(process.execPath, args, { env, stdio: [stdin, 'pipe', 'pipe'] })
}

async function measured({ receiver }: Place, start: () => ChildProcess): Promise<BackupReading> {
  const before = receiver.usage()
  const started = performance.now()
  const child = start()
  const usage = watchUsage(child)
  let [output, errors] = ['', '']
  child.stdout?.on('data', (piece: Buffer) => {
    output = `${output}${piece}`.slice(-10_000)
  })
  child.stderr?.on('data', (piece: Buffer) => {
    errors = `${errors}${piece}`.slice(-10_000)
  })
  const [code] = (await once(child, 'close')) as [number | null]
  const seconds = (performance.now() - started) / 1000
  if (code !== 0) throw new Error(`the backup ended with ${code}: ${errors}${output}`)
  const after = receiver.usage()
  return {
    seconds,
    client: usage(),
    receiver: { peakBytes: after.peakBytes, cpuSeconds: after.cpuSeconds - before.cpuSeconds },
    summary: JSON.parse(output.trim().split('\n').at(-1) ?? '{}') as BackupSummary,
  }
}
