/**
 * The same uploads to our tree, to `rclone serve webdav` and to Apache, in one run, in turns:
 *
 *     npm run bench:dav -- [--rounds 3] [--files 2000] [--large-mib 1024] [--only rclone-small,small,large]
 *
 * - `rclone-small`: `rclone copy` of small files. rclone 1.60 sends a WebDAV server at most 100 requests a
 *   second and three for each file (MKCOL, PUT, PROPFIND): the times tell how rclone feels, not what a server can do.
 * - `small`: the same files by 8 keep-alive connections, one PUT each: what a server can do.
 * - `large`: one large file of noise by rclone.
 *
 * Every round goes to an empty folder (with us, an empty vault, so that nothing is known yet). `answered` is
 * the time until the client is done; `on disk` adds a `sync -f` of the server's folder, for what a server has
 * answered for may be in memory only.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Pool } from 'undici'
import { run } from '../../test/clients/run-program.ts'
import { apache, type DavProgram, rclone } from '../../test/support/dav-servers.ts'
import { seededBytes } from '../../test/support/tree.ts'
import { median, ms, table } from './figures.ts'
import { startReceiverProcess } from './receiver-process.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    files: { type: 'string', default: '2000' },
    'large-mib': { type: 'string', default: '1024' },
    only: { type: 'string', default: 'rclone-small,small,large' },
  },
})
const rounds = Number(values.rounds)
const fileCount = Number(values.files)
const largeMib = Number(values['large-mib'])

const notes = [
  'What a 2xx means for the data, as the servers are by default:',
  '- chunkdav: hashed, compressed, deduplicated; chunks and the name are fsynced before the answer (uploads that wait share one)',
  '- Apache mod_dav_fs: written to a temporary file and renamed; no fsync',
  '- rclone serve webdav: written in place into the folder; no fsync',
]

interface Contender {
  readonly name: string
  /** The URL of an empty collection, for one measurement. */
  fresh(): Promise<string>
  /** Removes what the measurement left, so that disk and cache are free for the next. */
  clean(): Promise<void>
  readonly folder: string
  stop(): Promise<void>
}

async function ours(): Promise<Contender> {
  const receiver = await startReceiverProcess()
  let number = 0
  return {
    name: 'chunkdav',
    folder: receiver.dataDir,
    fresh: async () => {
      number += 1
      await fetch(`${receiver.url}/v${number}/`, { method: 'MKCOL' })
      return `${receiver.url}/v${number}/tree/`
    },
    // A vault cannot be removed through HTTP, and is not in the way.
    clean: async () => {},
    stop: async () => await receiver[Symbol.asyncDispose](),
  }
}

async function other(program: DavProgram, name: string): Promise<Contender> {
  const server = await program.start()
  let number = 0
  const url = (): string => `${server.url}/r${number}/`
  return {
    name,
    folder: server.folder,
    fresh: async () => {
      number += 1
      await fetch(url(), { method: 'MKCOL' })
      return url()
    },
    clean: async () => {
      await fetch(url(), { method: 'DELETE' })
    },
    stop: () => server.stop(),
  }
}

// -- the uploads --------------------------------------------------------------------------------------

const base = await mkdtemp(join(tmpdir(), 'chunkdav-bench-source-'))
const small = join(base, 'small')
const large = join(base, 'large')

/** Files of 1 to 16 KiB in folders of 100. */
function makeSmall(): void {
  for (let i = 0; i < fileCount; i++) {
    const folder = join(small, `d${Math.floor(i / 100)}`)
    if (i % 100 === 0) mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `f${i}`), seededBytes(`${i}`, 1024 + ((i * 7919) % 15360)))
  }
}

async function rcloneCopy(from: string, url: string): Promise<void> {
  const config = join(base, 'rclone.conf')
  writeFileSync(config, '')
  const remote = { RCLONE_CONFIG_T_TYPE: 'webdav', RCLONE_CONFIG_T_URL: url, RCLONE_CONFIG_T_VENDOR: 'other' }
  await run('rclone', ['copy', from, 't:'], { env: { HOME: base, RCLONE_CONFIG: config, ...remote } })
}

async function putSmall(url: string): Promise<void> {
  const { origin, pathname } = new URL(url)
  const pool = new Pool(origin, { connections: 8 })
  const send = async (method: 'PUT' | 'MKCOL', path: string, body?: Buffer): Promise<void> => {
    const answer = await pool.request({
      path: `${pathname}${path}`,
      method: method as 'PUT',
      body: body ?? null,
    })
    await answer.body.dump()
    if (answer.statusCode !== 201) throw new Error(`${method} ${path} was answered ${answer.statusCode}`)
  }
  const folders = readdirSync(small)
  for (const folder of folders) await send('MKCOL', `${folder}/`)
  const files = folders.flatMap((folder) =>
    readdirSync(join(small, folder)).map((name) => `${folder}/${name}`),
  )
  const worker = async (): Promise<void> => {
    for (let name = files.pop(); name !== undefined; name = files.pop()) {
      await send('PUT', name, readFileSync(join(small, name)))
    }
  }
  await Promise.all(Array.from({ length: 8 }, worker))
  await pool.close()
}

const kinds: { name: string; title: string; upload: (url: string) => Promise<void> }[] = [
  {
    name: 'rclone-small',
    title: `${fileCount} small files by rclone`,
    upload: (url) => rcloneCopy(small, url),
  },
  { name: 'small', title: `${fileCount} small files by 8 connections`, upload: putSmall },
  { name: 'large', title: `one file of ${largeMib} MiB by rclone`, upload: (url) => rcloneCopy(large, url) },
]

// -- the run ------------------------------------------------------------------------------------------

interface Times {
  readonly answered: number[]
  readonly onDisk: number[]
}

async function measure(contender: Contender, upload: (url: string) => Promise<void>, times: Times) {
  const url = await contender.fresh()
  // What the measurement before left to write must not slow down this one.
  await run('sync', ['-f', contender.folder])
  const started = performance.now()
  await upload(url)
  times.answered.push(performance.now() - started)
  await run('sync', ['-f', contender.folder])
  times.onDisk.push(performance.now() - started)
  await contender.clean()
}

async function compare(contenders: readonly Contender[]): Promise<void> {
  for (const { name, title, upload } of kinds) {
    if (!values.only.split(',').includes(name)) continue
    const all = new Map(contenders.map((it) => [it, { answered: [], onDisk: [] } as Times]))
    for (let round = 0; round < rounds; round++) {
      // Nobody is always first.
      const turn = round % contenders.length
      for (const it of [...contenders.slice(turn), ...contenders.slice(0, turn)]) {
        await measure(it, upload, all.get(it) as Times)
      }
    }
    const [reference] = all.values()
    const ratio = (value: number, to: number): string => `${(value / to).toFixed(2)} ×`
    const rows = [...all].map(([it, { answered, onDisk }]) => [
      it.name,
      ms(median(answered)),
      ratio(median(answered), median(reference?.answered ?? [])),
      ms(median(onDisk)),
      ratio(median(onDisk), median(reference?.onDisk ?? [])),
      answered.map(ms).join(', '),
    ])
    const head = ['', 'answered', 'to chunkdav', 'on disk', 'to chunkdav', 'rounds, answered']
    console.log(`\n${title}: medians of ${rounds} rounds\n${table([head, ...rows])}`)
  }
  console.log(`\n${notes.join('\n')}`)
}

makeSmall()
writeFileSync(large, '')
for (let i = 0; i < largeMib; i += 64) {
  writeFileSync(large, seededBytes(`large ${i}`, Math.min(64, largeMib - i) * 1024 * 1024), { flag: 'a' })
}
const contenders: Contender[] = []
try {
  contenders.push(await ours(), await other(rclone, 'rclone'), await other(apache, 'Apache'))
  await compare(contenders)
} finally {
  for (const contender of contenders) await contender.stop()
  rmSync(base, { recursive: true, force: true })
}
