/**
 * What is large, in a live tree: one file of many GiB, and a tree of a million files.
 *
 *     npm run bench:live-tree -- [--gib 20] [--noise-gib 2] [--files 1000000] [--only upload,million] [--data DIR]
 *
 * - `upload`: curl sends a sparse file chunked, so that its length is unknown. Meanwhile a small GET every 20 ms
 *   and a PROPFIND of 1,000 members every second. Then the same with noise, of which every byte is stored.
 * - `million`: the tree is filled by 64 keep-alive connections: 100 folders, the first with a tenth of all
 *   files. Then MOVE of its top, PROPFIND of the large folder, GET of files, a restart, and two freezes.
 *
 * The receiver is a process of its own. Its peak of resident memory and the delays of its event loop are
 * those of each step alone.
 */
import { spawn } from 'node:child_process'
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Dispatcher, Pool } from 'undici'
import { run } from '../../test/clients/run-program.ts'
import { mib, ms, quantile, table } from '../figures.ts'
import { leaveNothing } from '../leave-nothing.ts'
import { type ReceiverProcess, startReceiverProcess } from '../receiver-process.ts'

const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '20' },
    'noise-gib': { type: 'string', default: '2' },
    files: { type: 'string', default: '1000000' },
    only: { type: 'string', default: 'upload,million' },
    data: { type: 'string', default: tmpdir() },
  },
})
const GiB = 1024 ** 3
const rows: string[][] = [
  ['step', 'time', 'peak RSS', 'RSS after', 'loop p50', 'p99', 'max', 'GET /-/health p50', 'p99', 'max'],
]

/** Runs one step, and asks for the receiver's health all the while when `probing`. */
async function step<T>(receiver: ReceiverProcess, name: string, work: () => Promise<T>): Promise<T> {
  await receiver.beginPhase()
  const stop = new AbortController()
  const probe = healthTimes(receiver.url, stop.signal)
  const started = performance.now()
  const result = await work().finally(() => stop.abort())
  const took = performance.now() - started
  const health = await probe
  const { peakBytes, residentBytes, eventLoop } = await receiver.endPhase()
  const row = [name, ms(took), mib(peakBytes), mib(residentBytes)]
  row.push(...[eventLoop.p50, eventLoop.p99, eventLoop.max].map(ms))
  row.push(...[0.5, 0.99, 1].map((part) => (health.length === 0 ? '-' : ms(quantile(health, part)))))
  rows.push(row)
  console.log(row.join(' | '))
  return result
}

async function healthTimes(url: string, signal: AbortSignal): Promise<number[]> {
  const times: number[] = []
  const pool = new Pool(url, { connections: 1 })
  while (!signal.aborted) {
    const started = performance.now()
    const answer = await pool.request({ path: '/-/health', method: 'GET' })
    await answer.body.dump()
    times.push(performance.now() - started)
    await sleep(20)
  }
  await pool.close()
  return times
}

/** A request that must be answered `status`; its body's bytes, and the time of the first. */
async function ask(pool: Pool, method: string, path: string, status: number, more: object = {}) {
  const started = performance.now()
  const options = { path, method: method as Dispatcher.HttpMethod, ...more }
  const answer = await pool.request({ headersTimeout: 0, bodyTimeout: 0, ...options })
  let firstMs = 0
  let bytes = 0
  let members = 0
  let rest = ''
  for await (const piece of answer.body as AsyncIterable<Buffer>) {
    if (bytes === 0) firstMs = performance.now() - started
    bytes += piece.length
    const parts = `${rest}${piece.toString('latin1')}`.split('<D:response>')
    members += parts.length - 1
    rest = (parts.at(-1) ?? '').slice(-12)
  }
  if (answer.statusCode !== status) throw new Error(`${method} ${path} was answered ${answer.statusCode}`)
  return { bytes, members, firstMs, ms: performance.now() - started }
}

async function fill(pool: Pool, connections: number, paths: Iterator<string>): Promise<void> {
  const worker = async (): Promise<void> => {
    for (let next = paths.next(); next.done !== true; next = paths.next()) {
      await ask(pool, 'PUT', next.value, 201, { body: `this is ${next.value}\n` })
    }
  }
  await Promise.all(Array.from({ length: connections }, worker))
}

// -- one large file -----------------------------------------------------------------------------------

async function uploads(receiver: ReceiverProcess): Promise<void> {
  const folder = await mkdtemp(join(values.data, 'chunkdav-bench-'))
  const pool = new Pool(receiver.url, { connections: 16 })
  try {
    await ask(pool, 'MKCOL', '/upload/', 201)
    await ask(pool, 'MKCOL', '/upload/tree/many/', 201)
    const names = Array.from({ length: 1000 }, (_, i) => `/upload/tree/many/file-${i}`)
    await fill(pool, 16, names.values())
    const sparse = join(folder, 'sparse')
    const fd = openSync(sparse, 'w')
    ftruncateSync(fd, Number(values.gib) * GiB)
    closeSync(fd)
    await step(receiver, 'nothing for 5 s', () => sleep(5000))
    await upload(receiver, pool, `${values.gib} GiB sparse`, 'sparse', `exec cat '${sparse}'`)
    const bytes = Number(values['noise-gib']) * GiB
    if (bytes > 0) {
      // Faster than urandom, so that the receiver is what is waited for. `head` breaks its pipe.
      const noise = `set +o pipefail; openssl enc -aes-128-ctr -pass pass:x -nosalt </dev/zero 2>/dev/null | head -c ${bytes}`
      await upload(receiver, pool, `${values['noise-gib']} GiB of noise`, 'noise', noise)
    }
    const compare = `curl -sSf --noproxy '*' '${receiver.url}/upload/tree/sparse' | cmp - '${sparse}'`
    await step(receiver, 'GET of the sparse file, compared', () => run('bash', ['-c', compare]))
  } finally {
    await pool.destroy()
    await rm(folder, { recursive: true, force: true })
  }
}

async function upload(receiver: ReceiverProcess, pool: Pool, what: string, name: string, command: string) {
  const stop = new AbortController()
  const listings = propfindTimes(pool, '/upload/tree/many/', 1001, stop.signal)
  const url = `${receiver.url}/upload/tree/${name}`
  // `-T -` has no length to tell: chunked.
  const curl = `set -o pipefail; { ${command}; } | curl -sSf --noproxy '*' -H Expect: -T - '${url}'`
  await step(receiver, `PUT of ${what}, chunked`, () => spawned('bash', ['-c', curl])).finally(() =>
    stop.abort(),
  )
  const times = await listings
  const figures = [0.5, 0.99, 1].map((part) => ms(quantile(times, part)))
  console.log(`  meanwhile ${times.length} PROPFINDs of 1,000 members: p50, p99, max ${figures.join(', ')}`)
}

async function spawned(program: string, args: string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  const code = await new Promise((resolve) => child.once('close', resolve))
  if (code !== 0) throw new Error(`${program} ended with ${code}`)
}

async function propfindTimes(pool: Pool, path: string, expected: number, signal: AbortSignal) {
  const times: number[] = []
  do {
    const answer = await ask(pool, 'PROPFIND', path, 207, { headers: { Depth: '1' } })
    if (answer.members !== expected) throw new Error(`PROPFIND told of ${answer.members}, not ${expected}`)
    times.push(answer.ms)
    await sleep(1000, undefined, { signal }).catch((error: Error) => {
      if (error.name !== 'AbortError') throw error
    })
  } while (!signal.aborted)
  return times
}

// -- a million files ----------------------------------------------------------------------------------

const folders = 100

function* filesOf(total: number): Generator<string> {
  const inFirst = Math.floor(total / 10)
  for (let i = 0; i < inFirst; i++) yield `d0/file-${i}.txt`
  for (let i = inFirst; i < total; i++) yield `d${1 + (i % (folders - 1))}/file-${i}.txt`
}

function* below(top: string, names: Iterable<string>): Generator<string> {
  for (const name of names) yield `${top}${name}`
}

async function million(receiver: ReceiverProcess): Promise<void> {
  const total = Number(values.files)
  const pool = new Pool(receiver.url, { connections: 64 })
  const tree = '/million/tree/'
  await ask(pool, 'MKCOL', '/million/', 201)
  await ask(pool, 'MKCOL', `${tree}top/`, 201)
  for (let i = 0; i < folders; i++) await ask(pool, 'MKCOL', `${tree}top/d${i}/`, 201)
  const started = performance.now()
  await step(receiver, `PUT of ${total} files by 64 connections`, () =>
    fill(pool, 64, below(`${tree}top/`, filesOf(total))),
  )
  console.log(`  ${Math.round(total / ((performance.now() - started) / 1000))} files a second`)

  const headers = { Destination: `${receiver.url}${tree}moved/` }
  await step(receiver, 'MOVE of the top', () => ask(pool, 'MOVE', `${tree}top/`, 201, { headers }))
  const inFirst = Math.floor(total / 10)
  for (const round of ['first', 'again']) {
    const listed = await step(receiver, `PROPFIND of ${inFirst} members, ${round}`, () =>
      ask(pool, 'PROPFIND', `${tree}moved/d0/`, 207, { headers: { Depth: '1' } }),
    )
    if (listed.members !== inFirst + 1) throw new Error(`PROPFIND told of ${listed.members} members`)
    console.log(`  first byte after ${ms(listed.firstMs)}, ${mib(listed.bytes)}`)
  }
  await gets(receiver, pool, `${tree}moved/`, total)
  console.log(`restart: ${ms(await receiver.restart())} until it listens`)
  const again = new Pool(receiver.url, { connections: 4 })
  await gets(receiver, again, `${tree}moved/`, total)
  await freezes(receiver, again, `${tree}moved/`)
  await step(receiver, 'DELETE of the top', () => ask(again, 'DELETE', `${tree}moved/`, 204))
  await Promise.all([pool.destroy(), again.destroy()])
}

async function freezes(receiver: ReceiverProcess, pool: Pool, top: string): Promise<void> {
  const body = JSON.stringify({ freeze: { source: 'bench' } })
  const freeze = { headers: { 'Content-Type': 'application/json' }, body }
  await step(receiver, 'freeze', () => ask(pool, 'POST', top, 201, freeze))
  await ask(pool, 'PUT', `${top}d1/one-more`, 201, { body: 'one more' })
  await step(receiver, 'freeze after one change', () => ask(pool, 'POST', top, 201, freeze))
}

/** GET of 200 files spread over the tree, one after the other. */
async function gets(receiver: ReceiverProcess, pool: Pool, top: string, total: number): Promise<void> {
  const chosen = new Set(Array.from({ length: 200 }, () => Math.floor(Math.random() * total)))
  const names = [...filesOf(total)].filter((_, i) => chosen.has(i))
  const times: number[] = []
  await step(receiver, `GET of ${names.length} files at random`, async () => {
    for (const name of names) times.push((await ask(pool, 'GET', `${top}${name}`, 200)).ms)
  })
  console.log(`  each: ${[0.5, 0.99, 1].map((part) => ms(quantile(times, part))).join(', ')} (p50, p99, max)`)
}

// -- the run ------------------------------------------------------------------------------------------

const parts: Record<string, (receiver: ReceiverProcess) => Promise<void>> = { upload: uploads, million }
leaveNothing()
for (const name of values.only.split(',')) {
  const part = parts[name]
  if (part === undefined) throw new TypeError(`--only knows no ${name}`)
  await using receiver = await startReceiverProcess(values.data)
  await part(receiver)
}
console.log(`\n${table(rows)}`)
