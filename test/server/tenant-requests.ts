/**
 * A request for every operation of openapi.yaml that succeeds for whoever may make it: the ids, paths and checkpoints in
 * it are there. What a request uses up is made anew for each, by somebody who may do everything.
 */
import { Agent, request } from 'node:http'
import { batchMediaType } from '../../protocol/block.ts'
import { baseHeader, mediaTypes } from '../../protocol/url.ts'
import { compress } from '../../protocol/zstd.ts'
import { blockOf, chunk, smallTree } from './requests.ts'

/** Stands for the name of the vault, in paths, headers and bodies. */
export const vaultSign = '{vault}'

export interface Asked {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string
}

export interface Answer {
  readonly status: number
  /** As they came, without what differs between any two answers. */
  readonly headers: string
  readonly body: string
  /** Of a problem document. */
  readonly code: string | undefined
}

const agent = new Agent({ keepAlive: true, maxSockets: 4 })

/** Who asks, by a token; undefined says nothing. */
export async function exchange(url: string, token: string | undefined, asked: Asked): Promise<Answer> {
  const { hostname, port } = new URL(url)
  const { method, path, headers = {}, body = '' } = asked
  const login = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const length =
    body.length === 0 && method !== 'PUT' ? {} : { 'content-length': String(Buffer.byteLength(body)) }
  return await new Promise((resolve, reject) => {
    const options = {
      agent,
      hostname,
      port,
      method,
      path,
      headers: { 'x-request-id': 'r', ...length, ...headers, ...login },
    }
    const sent = request(options, (answer) => {
      const pieces: Buffer[] = []
      answer.on('data', (piece: Buffer) => pieces.push(piece))
      answer.on('error', reject)
      answer.on('end', () => {
        const text = Buffer.concat(pieces).toString('utf8')
        const isProblem = answer.headers['content-type']?.startsWith('application/problem+json') === true
        const code =
          isProblem && text !== ''
            ? (JSON.parse(text) as { type: string }).type.replace('urn:chunkdav:problem:', '')
            : undefined
        resolve({
          status: answer.statusCode ?? 0,
          headers: shownHeaders(answer.rawHeaders),
          body: text,
          code,
        })
      })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

function shownHeaders(raw: readonly string[]): string {
  const lines: string[] = []
  for (let i = 0; i < raw.length; i += 2) if (raw[i] !== 'Date') lines.push(`${raw[i]}: ${raw[i + 1]}`)
  return lines.join('\n')
}

/** The request with the vault's name in its place. */
export function inVault({ method, path, headers = {}, body = '' }: Asked, vault: string): Asked {
  const named = Object.entries(headers).map(([name, value]) => [name, value.replaceAll(vaultSign, vault)])
  return { method, path: path.replaceAll(vaultSign, vault), headers: Object.fromEntries(named), body }
}

/** Asks in the vault as whoever may do everything there, or in the name of `by`; throws when it does not succeed. */
export type Prepare = (asked: Asked, by?: string) => Promise<string>

interface Preparing {
  readonly prepare: Prepare
  /** Whose checkpoints the request continues: that of who makes it, if they may have any. */
  readonly owner: string
}

type Sample = (given: Preparing) => Promise<Partial<Asked>>

const tree = smallTree()
const json = { 'content-type': 'application/json' }
const xml = { 'content-type': 'application/xml', depth: '0' }
let last = 0
/** A name that was never used before. */
const fresh = (): string => `n${++last}`

/** Fills a vault with what the requests read. */
export async function furnish(prepare: Prepare): Promise<void> {
  for (const { id, bytes } of tree.chunks) {
    await prepare({ method: 'PUT', path: `/{vault}/chunks/${id}`, body: bytes })
  }
  for (const [kind, { id, bytes }] of [
    ['files', tree.big],
    ['dirs', tree.sub],
    ['dirs', tree.root],
  ] as const) {
    await prepare({ method: 'PUT', path: `/{vault}/${kind}/${id}`, body: bytes })
  }
  await prepare({ method: 'POST', path: '/{vault}/checkpoints/s/', headers: json, body: '{"kind":"dir"}' })
  const root = JSON.stringify({ root: tree.root.id })
  await prepare({ method: 'POST', path: '/{vault}/checkpoints/s/1/commit', headers: json, body: root })
  await prepare({ method: 'POST', path: '/{vault}/checkpoints/c/', headers: json, body: '{"kind":"chunks"}' })
  await prepare({ method: 'PUT', path: '/{vault}/tree/a.txt', body: 'A' })
}

const ownSource = ({ owner }: Preparing): string => `/{vault}/checkpoints/of-${owner.replace('+', '-')}/`

async function opened(given: Preparing, kind: 'dir' | 'chunks'): Promise<string> {
  const { prepare, owner } = given
  const path = ownSource(given)
  const state = await prepare({ method: 'POST', path, headers: json, body: JSON.stringify({ kind }) }, owner)
  return `${path}${(JSON.parse(state) as { number: number }).number}`
}

async function written({ prepare }: Preparing): Promise<string> {
  const name = fresh()
  await prepare({ method: 'PUT', path: `/{vault}/tree/${name}`, body: name })
  return name
}

async function trashed(given: Preparing): Promise<{ item: number; name: string }> {
  const name = await written(given)
  await given.prepare({ method: 'DELETE', path: `/{vault}/tree/${name}` })
  const headers = { accept: 'application/json' }
  const list = await given.prepare({ method: 'GET', path: '/{vault}/trash/', headers })
  const { items } = JSON.parse(list) as { items: { item: number; path: string }[] }
  const found = items.find(({ path }) => path === name)
  if (found === undefined) throw new TypeError(`${name} is not in the trash`)
  return { item: found.item, name }
}

const read = (path: string, headers: Record<string, string> = {}): Record<string, Sample> => {
  const sample: Sample = async () => ({ path, headers })
  return { GET: sample, HEAD: sample, PROPFIND: async () => ({ path, headers: { ...headers, ...xml } }) }
}

const object = (kind: string, { id, bytes }: { id: string; bytes: Buffer }): Record<string, Sample> => ({
  ...read(`/{vault}/${kind}/${id}`),
  PUT: async () => ({ path: `/{vault}/${kind}/${id}`, body: bytes }),
  PATCH: async () => ({
    path: `/{vault}/${kind}/${id}`,
    headers: { 'content-type': mediaTypes.jsonPatch, [baseHeader]: id },
    body: '[]',
  }),
})

const destination = (): Record<string, string> => ({ destination: `/{vault}/tree/${fresh()}` })
const properties =
  '<propertyupdate xmlns="DAV:"><set><prop><x xmlns="urn:x">y</x></prop></set></propertyupdate>'
const sync = '<sync-collection xmlns="DAV:"><sync-token/><sync-level>1</sync-level><prop/></sync-collection>'
const lock =
  '<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>'

const samples: Readonly<Record<string, Readonly<Record<string, Sample>>>> = {
  '/': read('/'),
  '/{vault}/': { ...read('/{vault}/'), MKCOL: async () => ({ path: '/{vault}/' }) },
  '/{vault}/chunks/': {
    POST: async () => ({
      headers: { 'content-type': batchMediaType },
      body: await blockOf([chunk(fresh())]),
    }),
  },
  '/{vault}/chunks/missing': { POST: async () => ({ body: JSON.stringify({ ids: [tree.a.id] }) }) },
  '/{vault}/chunks/fetch': { POST: async () => ({ body: JSON.stringify({ ids: [tree.a.id] }) }) },
  '/{vault}/chunks/{id}': {
    ...read(`/{vault}/chunks/${tree.a.id}`),
    PUT: async () => {
      const { id, bytes } = chunk(fresh())
      return { path: `/{vault}/chunks/${id}`, body: bytes }
    },
    PATCH: async () => {
      const { id, bytes } = chunk(`${tree.a.bytes}${fresh()}`)
      const headers = { 'content-type': mediaTypes.delta, [baseHeader]: tree.a.id }
      const body = await compress(bytes, { dictionary: tree.a.bytes })
      return { path: `/{vault}/chunks/${id}`, headers, body }
    },
  },
  '/{vault}/files/{id}': object('files', tree.big),
  '/{vault}/dirs/{id}': object('dirs', tree.root),
  '/{vault}/dirs/{id}/{path}': read(`/{vault}/dirs/${tree.root.id}/sub/b%20c.txt`),
  '/{vault}/checkpoints/{source}/': {
    ...read('/{vault}/checkpoints/s/'),
    POST: async (given) => ({ path: ownSource(given), headers: json, body: '{"kind":"dir"}' }),
  },
  '/{vault}/checkpoints/{source}/{number}': {
    ...read('/{vault}/checkpoints/s/1'),
    DELETE: async (given) => ({ path: await opened(given, 'dir') }),
  },
  '/{vault}/checkpoints/{source}/{number}/items': {
    ...read('/{vault}/checkpoints/c/1/items'),
    POST: async (given) => ({
      path: `${await opened(given, 'chunks')}/items`,
      headers: json,
      body: JSON.stringify({ first: 0, items: [{ id: tree.a.id, size: tree.a.bytes.length }] }),
    }),
  },
  '/{vault}/checkpoints/{source}/{number}/commit': {
    POST: async (given) => ({
      path: `${await opened(given, 'dir')}/commit`,
      headers: json,
      body: JSON.stringify({ root: tree.root.id }),
    }),
  },
  '/{vault}/checkpoints/{source}/{number}/pin': {
    PUT: async () => ({ path: '/{vault}/checkpoints/s/1/pin' }),
    DELETE: async () => ({ path: '/{vault}/checkpoints/s/1/pin' }),
  },
  '/{vault}/settings': { ...read('/{vault}/settings'), PUT: async () => ({ headers: json, body: '{}' }) },
  '/{vault}/upkeep/prune': { POST: async () => ({ headers: json, body: '{"dryRun":true}' }) },
  '/{vault}/tree/{path}': {
    ...read('/{vault}/tree/a.txt'),
    PUT: async () => ({ path: `/{vault}/tree/${fresh()}`, body: 'x' }),
    POST: async () => ({ path: '/{vault}/tree/', headers: json, body: '{"freeze":{}}' }),
    DELETE: async (given) => ({ path: `/{vault}/tree/${await written(given)}` }),
    MKCOL: async () => ({ path: `/{vault}/tree/${fresh()}/` }),
    COPY: async () => ({ path: '/{vault}/tree/a.txt', headers: destination() }),
    MOVE: async (given) => ({ path: `/{vault}/tree/${await written(given)}`, headers: destination() }),
    PROPPATCH: async () => ({ path: '/{vault}/tree/a.txt', headers: xml, body: properties }),
    REPORT: async () => ({ path: '/{vault}/tree/', headers: xml, body: sync }),
    LOCK: async () => ({ path: `/{vault}/tree/${fresh()}`, headers: xml, body: lock }),
    UNLOCK: async ({ prepare }) => {
      const path = `/{vault}/tree/${fresh()}`
      const told = await prepare({ method: 'LOCK', path, headers: xml, body: lock })
      const [, token = ''] = /(urn:uuid:[0-9a-f-]+)/.exec(told) ?? []
      return { path, headers: { 'lock-token': `<${token}>` } }
    },
  },
  '/{vault}/snapshots/{source}/': read('/{vault}/snapshots/s/'),
  '/{vault}/snapshots/{source}/{number}/{path}': {
    ...read('/{vault}/snapshots/s/1/a.txt'),
    COPY: async () => ({ path: '/{vault}/snapshots/s/1/a.txt', headers: destination() }),
  },
  '/{vault}/trash/{item}/{path}': {
    ...Object.fromEntries(
      Object.entries(read('')).map(([method, sample]) => [
        method,
        async (given: Preparing) => {
          const { item, name } = await trashed(given)
          return { ...(await sample(given)), path: `/{vault}/trash/${item}/${name}` }
        },
      ]),
    ),
    MOVE: async (given) => {
      const { item, name } = await trashed(given)
      return { path: `/{vault}/trash/${item}/${name}`, headers: destination() }
    },
    DELETE: async (given) => ({ path: `/{vault}/trash/${(await trashed(given)).item}` }),
  },
}

/** What stands in a path where an operation says nothing else. */
const parameters: Readonly<Record<string, string>> = { id: tree.a.id, source: 's', number: '1', item: '1' }

/** A request for an operation that succeeds for who may make it. */
export async function sampleOf(template: string, method: string, given: Preparing): Promise<Asked> {
  const sample = samples[template]?.[method]
  const path = template
    .replace(/\/\{path\}$/, '/')
    .replace(/\{(\w+)\}/g, (sign, name: string) => (name === 'vault' ? sign : (parameters[name] ?? 'x')))
  const headers: Record<string, string> = method === 'PROPFIND' ? xml : {}
  return { method, path, headers, ...(sample === undefined ? {} : await sample(given)) }
}
