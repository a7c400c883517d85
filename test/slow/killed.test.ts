/**
 * kill -9 of the real client and of the real receiver, at twenty moments each of a first backup: a rerun
 * goes on, what was stored is not sent again, and what is restored is what was there.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { listing, seededBytes, temporaryFolder } from '../support/tree.ts'

const moments = 20
const bin = new URL('../../client/bin.ts', import.meta.url).pathname

/** 1,500 small files and four large ones: about 230 MB. */
function makeTree(root: string): void {
  for (let i = 0; i < 30; i++) {
    mkdirSync(join(root, `d${i}`, 'sub'), { recursive: true })
    for (let j = 0; j < 50; j++)
      writeFileSync(join(root, `d${i}`, 'sub', `f${j}`), seededBytes(`${i} ${j}`, 10_000 + j * 300))
  }
  for (const name of ['a-large', 'd15-large', 'd9-large', 'zz-large']) {
    writeFileSync(join(root, name), seededBytes(name, 50_000_000))
  }
}

/** Spread over the part of a run in which something is sent: the process takes a while to start. */
function momentOf(i: number, wholeMs: number): number {
  return Math.round(wholeMs * (0.3 + (0.7 * i) / (moments + 1)))
}

interface Finished {
  readonly code: number | null
  readonly lines: Record<string, unknown>[]
  readonly stderr: string
}

function chunkdav(args: string[], stateHome: string): { child: ChildProcess; finished: Promise<Finished> } {
  const env = { ...process.env, XDG_STATE_HOME: stateHome }
  const child = spawn(process.execPath, [bin, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', (data) => {
    stdout += data
  })
  child.stderr?.on('data', (data) => {
    stderr += data
  })
  const finished = once(child, 'close').then(([code]) => {
    const lines = stdout.split('\n').filter((line) => line.startsWith('{'))
    return {
      code: code as number | null,
      lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>),
      stderr,
    }
  })
  return { child, finished }
}

async function startServe(dataDir: string, port: number): Promise<ChildProcess> {
  const args = [bin, 'serve', '--data', dataDir, '--listen', `127.0.0.1:${port}`]
  const child = spawn(process.execPath, args, { stdio: 'ignore' })
  for (let i = 0; i < 200; i++) {
    const up = await fetch(`http://127.0.0.1:${port}/-/health`).then(
      (answer) => answer.ok,
      () => false,
    )
    if (up) return child
    await sleep(50)
  }
  throw new Error('the receiver did not come up')
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  await exited
}

async function storedChunks(vaultUrl: string): Promise<number> {
  const answer = await fetch(`${vaultUrl}/`, { headers: { accept: 'application/json' } })
  return answer.ok ? ((await answer.json()) as { chunks: number }).chunks : 0
}

async function restored(vaultUrl: string, to: string, state: string): Promise<string[]> {
  const { code, stderr } = await chunkdav(['restore', vaultUrl, '--to', to], state).finished
  expect(stderr).toBe('')
  expect(code).toBe(0)
  const lines = listing(to)
  rmSync(to, { recursive: true })
  return lines
}

test('the client is killed', async () => {
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  makeTree(from)
  const port = 18_420
  const receiver = await startServe(join(folder.path, 'data'), port)
  const url = (vault: string): string => `http://127.0.0.1:${port}/${vault}`
  try {
    const started = performance.now()
    const whole = await chunkdav(
      ['backup', from, url('whole'), '--source', 's', '--json'],
      join(folder.path, 'state'),
    ).finished
    const wholeMs = performance.now() - started
    const total = whole.lines.at(-1)?.chunksSent as number
    const rows: string[] = []
    let killed = 0
    for (let i = 1; i <= moments; i++) {
      const state = join(folder.path, `state-${i}`)
      const vault = url(`v${i}`)
      const first = chunkdav(['backup', from, vault, '--source', 's', '--json'], state)
      await sleep(momentOf(i, wholeMs))
      if (first.child.exitCode === null) killed++
      first.child.kill('SIGKILL')
      await first.finished
      await sleep(300)
      const before = await storedChunks(vault)
      const second = await chunkdav(['backup', from, vault, '--source', 's', '--json'], state).finished
      expect(second.code).toBe(0)
      const summary = second.lines.at(-1) as Record<string, number>
      rows.push(
        `${momentOf(i, wholeMs)} ms: ${before} of ${total} stored, then ${summary.chunksSent} sent, ${summary.filesRead} files read`,
      )
      expect(before + (summary.chunksSent ?? 0)).toBe(total)
      expect(await restored(vault, join(folder.path, 'to'), state)).toEqual(listing(from))
    }
    console.log(
      `client killed ${killed} times before its end (a whole run takes ${Math.round(wholeMs)} ms)\n${rows.join('\n')}`,
    )
    expect(killed).toBeGreaterThan(moments / 2)
  } finally {
    await stop(receiver, 'SIGTERM')
  }
})

test('the receiver is killed', async () => {
  await using folder = await temporaryFolder()
  const from = join(folder.path, 'from')
  makeTree(from)
  const port = 18_421
  const vaultOf = (i: number): string => `http://127.0.0.1:${port}/v${i}`
  let receiver = await startServe(join(folder.path, 'data'), port)
  try {
    const started = performance.now()
    const whole = await chunkdav(
      ['backup', from, vaultOf(0), '--source', 's', '--json'],
      join(folder.path, 'state'),
    ).finished
    const wholeMs = performance.now() - started
    const total = whole.lines.at(-1)?.chunksSent as number
    const rows: string[] = []
    for (let i = 1; i <= moments; i++) {
      const state = join(folder.path, `state-${i}`)
      const atMs = momentOf(i, wholeMs)
      const first = chunkdav(['backup', from, vaultOf(i), '--source', 's', '--json'], state)
      await sleep(atMs)
      await stop(receiver, 'SIGKILL')
      receiver = await startServe(join(folder.path, 'data'), port)
      const before = await storedChunks(vaultOf(i))
      let { code, lines } = await first.finished
      const outcome = code === 0 ? 'the client went on by itself' : 'the client gave up and was run again'
      if (code !== 0)
        ({ code, lines } = await chunkdav(['backup', from, vaultOf(i), '--source', 's', '--json'], state)
          .finished)
      expect(code).toBe(0)
      const after = await storedChunks(vaultOf(i))
      rows.push(
        `${atMs} ms: ${before} of ${total} stored, ${after} in the end, ${lines.at(-1)?.chunksSent} sent in all; ${outcome}`,
      )
      expect(after).toBe(total)
      expect(await restored(vaultOf(i), join(folder.path, 'to'), state)).toEqual(listing(from))
    }
    console.log(`receiver killed ${moments} times\n${rows.join('\n')}`)
  } finally {
    await stop(receiver, 'SIGTERM')
  }
})
