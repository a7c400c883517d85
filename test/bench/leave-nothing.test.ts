import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const module = new URL('../../bench/leave-nothing.ts', import.meta.url).href
/** Starts a shell that starts others, again and again, says their ids, and waits; or fails where nobody catches it. */
const run = `
import { spawn } from 'node:child_process'
import { leaveNothing } from '${module}'
const [folder, fails] = process.argv.slice(1)
leaveNothing({ folder, names: /^scratch-/ })
const child = spawn('sh', ['-c', 'sleep 1000 & echo $$ $!; while :; do /bin/true; done'], { stdio: ['ignore', 'pipe', 'inherit'] })
child.stdout.once('data', (ids) => {
  process.stdout.write(ids)
  if (fails) throw new Error('nobody catches this')
})
setInterval(() => {}, 1000)
`

function start(...more: string[]): { child: ChildProcess; folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'chunkdav-leave-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'scratch-1/below'), { recursive: true })
  mkdirSync(join(folder, 'corpora'))
  const child = spawn(process.execPath, ['--input-type=module', '-e', run, folder, ...more], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  return { child, folder }
}

async function idsFrom({ stdout }: ChildProcess): Promise<string[]> {
  const [said] = (await once(stdout as NodeJS.ReadableStream, 'data')) as [Buffer]
  return said.toString().trim().split(' ')
}

/** Who has ended may stand there until somebody asks how. */
function isRunning(id: string): boolean {
  return existsSync(`/proc/${id}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${id}/status`, 'utf8'))
}

function expectNothingLeft(ids: readonly string[], folder: string): void {
  expect(ids).toHaveLength(2)
  expect(ids.filter(isRunning)).toEqual([])
  expect(readdirSync(folder)).toEqual(['corpora'])
}

test.skipIf(process.platform !== 'linux').each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const)('%s ends all that was started, however often it comes', async (signal, code) => {
  const { child, folder } = start()
  const ids = await idsFrom(child)
  const exited = once(child, 'exit')
  const again = setInterval(() => child.kill(signal), 1)
  child.kill(signal)
  expect(await exited.finally(() => clearInterval(again))).toEqual([code, null])
  expectNothingLeft(ids, folder)
})

test.skipIf(process.platform !== 'linux')('so does an error that nobody catches', async () => {
  const { child, folder } = start('fails')
  const ids = await idsFrom(child)
  const [code] = (await once(child, 'exit')) as [number]
  expect(code).toBe(1)
  expectNothingLeft(ids, folder)
})
