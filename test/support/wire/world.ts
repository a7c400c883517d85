/** A receiver that is fuzzed: what is put there before, who asks, and what must be the same afterwards. */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Right } from '../../../server/access/identity.ts'
import { makeToken } from '../../../server/access/tokens.ts'
import { editUsers } from '../../../server/access/users-file.ts'
import { type ProcessFigures, ReceiverProcess } from './receiver-process.ts'
import { playground, secret, sentinel, type Universe } from './universe.ts'

const users: readonly [name: string, grants: Record<string, Right>][] = [
  ['olga', { '*': 'admin' }],
  ['adam', { [playground]: 'admin', 'fuzz-other': 'admin' }],
  ['wanda', { [playground]: 'write' }],
  ['paul', { [playground]: 'append+read' }],
  ['anna', { [playground]: 'append-only' }],
  ['rita', { [playground]: 'read' }],
  ['nora', {}],
]

export class World {
  readonly dataDir: string
  readonly hasUsers: boolean
  /** Of whoever may do everything; empty where nobody is asked. */
  readonly owner: string
  /** Of those who ask for the fuzzer; none of them has a right on the sentinel. */
  readonly strangers: readonly string[]
  #receiver: ReceiverProcess

  private constructor(dataDir: string, tokens: readonly string[], receiver: ReceiverProcess) {
    this.dataDir = dataDir
    this.hasUsers = tokens.length > 0
    const [owner = '', ...strangers] = tokens
    this.owner = owner
    this.strangers = this.hasUsers ? [...strangers, ''] : ['']
    this.#receiver = receiver
  }

  static async open(universe: Universe, { hasUsers }: { hasUsers: boolean }): Promise<World> {
    const dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-wire-'))
    const tokens = hasUsers ? await addUsers(dataDir) : []
    const world = new World(dataDir, tokens, await ReceiverProcess.start(dataDir))
    await world.#furnish(universe)
    return world
  }

  get receiver(): ReceiverProcess {
    return this.#receiver
  }

  async ask(
    method: string,
    path: string,
    body?: Buffer | string,
    headers: Record<string, string> = {},
  ): Promise<Buffer> {
    const { status, body: bytes } = await this.#receiver.ask(method, path, {
      authorization: this.owner,
      headers,
      body,
    })
    if (status >= 300)
      throw new Error(`${method} ${path} → ${status}: ${bytes.toString('utf8').slice(0, 500)}`)
    return bytes
  }

  async #furnish(universe: Universe): Promise<void> {
    const { chunks, files, directories } = universe
    await this.ask('MKCOL', `/${playground}/`)
    for (const { id, bytes } of chunks) await this.ask('PUT', `/${playground}/chunks/${id}`, bytes)
    for (const { id, bytes } of files) await this.ask('PUT', `/${playground}/files/${id}`, bytes)
    for (const { id, bytes } of [...directories].reverse())
      await this.ask('PUT', `/${playground}/dirs/${id}`, bytes)
    await this.#commit(playground, 'laptop', directories[0]?.id ?? '')
    for (const name of ['docs', 'docs/deep']) await this.ask('MKCOL', `/${playground}/tree/${name}/`)
    for (const name of ['a.txt', 'docs/b.txt', 'docs/deep/c.txt']) {
      await this.ask('PUT', `/${playground}/tree/${name}`, `this is ${name}\n`)
      await this.ask('PUT', `/${playground}/tree/${name}`, `this is ${name}, again\n`)
    }
    const { content, root } = universe.sentinel
    await this.ask('MKCOL', `/${sentinel}/`)
    await this.ask('PUT', `/${sentinel}/chunks/${content.id}`, content.bytes)
    await this.ask('PUT', `/${sentinel}/dirs/${root.id}`, root.bytes)
    await this.#commit(sentinel, secret, root.id)
    await this.ask('PUT', `/${sentinel}/tree/kept.txt`, `${secret} in the tree\n`)
    await this.ask('PUT', `/${sentinel}/tree/deleted.txt`, `${secret} in the trash\n`)
    await this.ask('DELETE', `/${sentinel}/tree/deleted.txt`)
  }

  /** Puts back what the requests have taken away, as far as they let it. */
  async refurnish(universe: Universe): Promise<void> {
    const root = universe.directories[0]?.id ?? ''
    const wishes: (() => Promise<unknown>)[] = [
      () => this.ask('PUT', `/${playground}/settings`, '{}'),
      ...['', 'docs/', 'docs/deep/'].map((name) => () => this.ask('MKCOL', `/${playground}/tree/${name}`)),
      ...['a.txt', 'docs/b.txt', 'docs/deep/c.txt'].map(
        (name) => () => this.ask('PUT', `/${playground}/tree/${name}`, `${name}, ${Date.now()}\n`),
      ),
      () => this.#commit(playground, 'laptop', root),
    ]
    for (const wish of wishes) await wish().catch((error: Error) => error)
  }

  async #commit(vault: string, source: string, root: string): Promise<void> {
    const about = { kind: 'dir', about: { note: source } }
    const opened = await this.ask('POST', `/${vault}/checkpoints/${source}/`, JSON.stringify(about))
    const { number } = JSON.parse(opened.toString('utf8')) as { number: number }
    await this.ask('POST', `/${vault}/checkpoints/${source}/${number}/commit`, JSON.stringify({ root }))
  }

  /** What the sentinel holds, as one digest: any change of a byte, a name or a time is another one. */
  async sentinelDigest({ sentinel: { content } }: Universe): Promise<string> {
    const hash = createHash('sha256')
    const prop =
      '<propfind xmlns="DAV:"><prop><getetag/><getlastmodified/><getcontentlength/></prop></propfind>'
    const questions: [
      method: string,
      path: string,
      body?: string | undefined,
      headers?: Record<string, string>,
    ][] = [
      ['GET', 'checkpoints/'],
      ['GET', `checkpoints/${secret}/`],
      ['GET', `chunks/${content.id}`],
      ['GET', `snapshots/${secret}/1/?archive=tar`],
      ['GET', 'tree/kept.txt'],
      ['GET', 'trash/', undefined, { accept: 'application/json' }],
      ['PROPFIND', 'tree/', prop, { depth: '1' }],
      ['PROPFIND', 'snapshots/', prop, { depth: '1' }],
    ]
    for (const [method, path, body, headers] of questions) {
      const bytes = await this.ask(method, `/${sentinel}/${path}`, body, headers)
      hash.update(`${path} ${bytes.length} `).update(bytes)
    }
    return hash.digest('hex')
  }

  /** Ends what runs in the background of the playground: it moves what is stored. */
  async stopUpkeep(): Promise<void> {
    for (const job of ['collection', 'scrub']) await this.ask('DELETE', `/${playground}/upkeep/${job}`)
  }

  figures(): Promise<ProcessFigures> {
    return this.#receiver.figures(this.owner)
  }

  /** Ends it as its owner would, and starts it again on the same data. Faults of the first are lost: take them before. */
  async restart(): Promise<void> {
    await this.#receiver.stop()
    this.#receiver = await ReceiverProcess.start(this.dataDir)
  }

  async close(): Promise<void> {
    await this.#receiver.stop()
    await rm(this.dataDir, { recursive: true, force: true })
  }
}

/** The value of `Authorization` of each user, in their order. */
async function addUsers(dataDir: string): Promise<string[]> {
  const now = new Date().toISOString()
  return await editUsers(dataDir, (document) =>
    users.map(([name, grants]) => {
      const { id, token, hash } = makeToken()
      document.users.push({ name, grants, metrics: name === 'olga', added: now })
      document.tokens.push({ id, user: name, hash, created: now })
      return `Bearer ${token}`
    }),
  )
}
