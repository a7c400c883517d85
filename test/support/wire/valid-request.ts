/** Makes requests that openapi.yaml allows: each operation of each path, with parameters, headers and bodies that fit. */
import type { Id } from '../../../protocol/id.ts'
import type { EncodedObject } from '../../../protocol/objects.ts'
import { contract, type Json, listOperations } from '../openapi.ts'
import type { Random } from './random.ts'
import { playground, type Universe } from './universe.ts'
import type { WireRequest } from './wire-request.ts'

export interface Operation {
  readonly template: string
  readonly method: string
  readonly operationId: string
}

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required?: boolean
  readonly schema?: Json
}

interface Described extends Operation {
  readonly parameters: readonly Parameter[]
  readonly content: readonly [mediaType: string, schema: Json | undefined][]
}

function followed(value: unknown): Json {
  const { $ref } = value as { $ref?: string }
  if ($ref === undefined) return value as Json
  let at: unknown = contract
  for (const key of $ref.slice(2).split('/')) at = (at as Json)[key.replaceAll('~1', '/')]
  return followed(at)
}

function describe(operation: Operation): Described {
  const item = (contract.paths as Json)[operation.template] as Json
  const additional = (item.additionalOperations ?? {}) as Json
  const own = (item[operation.method.toLowerCase()] ?? additional[operation.method]) as Json
  const listed = [...((item.parameters ?? []) as unknown[]), ...((own.parameters ?? []) as unknown[])]
  const body = own.requestBody === undefined ? undefined : followed(own.requestBody)
  const content = Object.entries((body?.content ?? {}) as Record<string, Json>)
  return {
    ...operation,
    parameters: listed.map((parameter) => followed(parameter) as unknown as Parameter),
    content: content.map(([type, media]) => [type, media.schema as Json | undefined]),
  }
}

/** Those that write come more often than each OPTIONS. */
const weights: Readonly<Record<string, number>> = { OPTIONS: 1, HEAD: 2, GET: 4, PROPFIND: 5 }
const described = listOperations().map(describe)
const weighted = described.flatMap((operation) =>
  Array.from({ length: weights[operation.method] ?? 6 }, () => operation),
)

/** All that there are. */
export const operations: readonly Operation[] = described

const sources = ['laptop', 'server', 'x.y_z-1'] as const
const treePaths = [
  '',
  '',
  'a.txt',
  'a.txt',
  'docs',
  'docs/',
  'docs/b.txt',
  'docs/deep/c.txt',
  'docs/deep/',
  'new.txt',
  'new/',
  'new/deeper/',
  '%C3%BCber%20x',
  'docs/%23%3F',
  'none/at/all',
]
const pathsBelow = ['', 'a.txt', 'big', 'sub', 'sub/', 'sub/c%20d.txt', 'e.txt', 'none']
const trashPaths = ['', 'a.txt', 'b.txt', 'c.txt', 'deep/', 'docs/']
/** Where locks do not keep the others out. */
const lockPaths = ['locked.txt', 'locked/', 'docs/locked.txt']
const tokens = [
  'opaquelocktoken:e71d4fae-5dec-22d6-fea5-00a0c91e6be4',
  'urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2',
]
const dates = ['Sun, 06 Nov 1994 08:49:37 GMT', 'Fri, 31 Dec 2100 23:59:59 GMT']

/** What a request is made of besides the operation. */
export interface Making {
  readonly random: Random
  readonly universe: Universe
  readonly host: string
  /** Of these one goes with each request; an empty one is left out. */
  readonly authorizations: readonly string[]
  /** Only this one operation. */
  readonly operationId?: string
}

export function makeValid(making: Making): WireRequest {
  const { random, host } = making
  const operation = random.pick(
    making.operationId === undefined
      ? weighted
      : described.filter(({ operationId }) => operationId === making.operationId),
  )
  const subject = subjectOf(operation, making)
  const request: WireRequest = {
    operationId: operation.operationId,
    method: operation.method,
    target: targetOf(operation, subject, making),
    version: 'HTTP/1.1',
    headers: [['Host', host]],
    body: undefined,
    framing: random.chance(0.25) ? 'chunked' : 'length',
    isFramed: true,
    cutAt: undefined,
    ending: 'wait',
    pieces: random.chance(0.1) ? 3 : 1,
    times: 1,
    mutations: [],
  }
  const authorization = random.pick(making.authorizations)
  if (authorization !== '') request.headers.push(['Authorization', authorization])
  for (const { name, in: where, required = false } of operation.parameters) {
    // A lock without a timeout would keep others out for long.
    // Without a depth a PROPFIND means all there is, and is refused.
    const isUsual = name === 'Timeout' || (name === 'Depth' && operation.method === 'PROPFIND')
    const isWanted = required || random.chance(isUsual ? 0.95 : 0.1)
    if (where !== 'header' || !isWanted) continue
    const value = headerValue(name, subject, making)
    if (value !== undefined) request.headers.push([name, value])
  }
  addBody(request, operation, subject, making)
  return request
}

/** What a request is about: an id, and the content that goes with it. */
interface Subject {
  readonly id: Id
  readonly content: EncodedObject | undefined
  readonly delta?: { readonly base: Id; readonly bytes: Buffer }
}

function subjectOf({ template, method }: Operation, { random, universe }: Making): Subject {
  const kind = template.split('/')[2]
  if (method === 'PATCH') {
    const patches = kind === 'files' ? universe.patches.files : universe.patches.dirs
    const delta = random.pick(kind === 'chunks' ? universe.deltas : patches)
    return { id: delta.id, content: undefined, delta }
  }
  if (method !== 'PUT' && random.chance(0.15)) return { id: universe.absent, content: undefined }
  const kinds: Record<string, readonly EncodedObject[]> = {
    files: universe.files,
    dirs: universe.directories,
    chunks: method === 'PUT' && random.chance(0.5) ? universe.fresh : universe.chunks,
  }
  const content = random.pick(kinds[kind ?? ''] ?? universe.chunks)
  return { id: content.id, content }
}

function targetOf(operation: Described, { id }: Subject, { random, universe }: Making): string {
  const values: Record<string, () => string> = {
    // Nobody makes it: it stays absent.
    vault: () => (operation.method === 'MKCOL' || random.chance(0.95) ? playground : 'nowhere'),
    id: () => id,
    source: () => random.pick(sources),
    number: () =>
      operation.template.includes('/snapshots/') && random.chance(0.5)
        ? 'latest'
        : String(1 + random.below(4)),
    item: () => String(1 + random.below(12)),
    path: () => {
      if (operation.template.includes('/trash/')) return random.pick(trashPaths)
      if (!operation.template.includes('/tree/')) return random.pick(pathsBelow)
      const isLock = operation.method === 'LOCK' && random.chance(0.95)
      if (isLock) return random.pick(lockPaths)
      const isTransfer = (operation.method === 'COPY' || operation.method === 'MOVE') && random.chance(0.6)
      return random.pick(isTransfer ? ['a.txt', 'docs/b.txt', 'docs/'] : treePaths)
    },
  }
  const path = operation.template.replace(/\{(\w+)\}/g, (_, name: string) => values[name]?.() ?? 'x')
  const query: string[] = []
  for (const { name, in: where, required = false } of operation.parameters) {
    if (where !== 'query' || !(required || random.chance(0.3))) continue
    const known: Record<string, string> = {
      first: String(random.below(5)),
      limit: String(1 + random.below(5000)),
      root: random.pick(universe.directories).id,
      archive: 'tar',
    }
    query.push(`${name}=${known[name] ?? '1'}`)
  }
  return query.length === 0 ? path : `${path}?${query.join('&')}`
}

function headerValue(
  name: string,
  { id, delta }: Subject,
  { random, universe, host }: Making,
): string | undefined {
  const values: Record<string, () => string> = {
    'Chunkdav-Checkpoint': () => `${random.pick(sources)}/${1 + random.below(4)}`,
    'Chunkdav-Base': () => delta?.base ?? universe.absent,
    // Only where the client would wait; here it sends at once, as it may.
    Expect: () => '100-continue',
    Depth: () => random.pick(['0', '1', '1', 'infinity']),
    Destination: () => {
      const path = `/${playground}/tree/${random.pick(treePaths)}`
      return random.chance(0.3) ? `http://${host}${path}` : path
    },
    Overwrite: () => random.pick(['T', 'F']),
    If: () => `(<${random.pick(tokens)}>)`,
    'If-Match': () => random.pick(['*', `"${id}"`]),
    'If-None-Match': () => random.pick(['*', `"${id}"`, '"x"']),
    'If-Range': () => `"${id}"`,
    'If-Modified-Since': () => random.pick(dates),
    'If-Unmodified-Since': () => random.pick(dates),
    Range: () => random.pick(['bytes=0-0', 'bytes=5-', 'bytes=-7', 'bytes=0-1,3-4']),
    'Accept-Encoding': () => random.pick(['zstd', 'gzip, zstd;q=0.5', 'identity']),
    'X-OC-Mtime': () => '1700000000.5',
    'OC-Checksum': () => 'SHA1:0000000000000000000000000000000000000000',
    'Lock-Token': () => `<${random.pick(tokens)}>`,
    Timeout: () => random.pick(['Second-1', 'Second-2', 'Infinite, Second-1']),
  }
  return values[name]?.()
}

function addBody(request: WireRequest, operation: Described, subject: Subject, making: Making): void {
  const { random, universe } = making
  if (operation.content.length === 0) return
  const [mediaType, schema] = random.pick(operation.content)
  const isDav = mediaType === 'application/xml'
  if (isDav && random.chance(0.3)) return
  request.body = isDav
    ? Buffer.from(random.pick(xmlOf[request.method] ?? xmlOf.PROPFIND ?? ['']))
    : (bodyOf(operation, subject, making) ?? Buffer.from(JSON.stringify(sample(schema, making))))
  if (mediaType !== '*/*') request.headers.push(['Content-Type', mediaType])
  const frame = subject.content && universe.zstdOf.get(subject.content.id)
  const mayBeZstd = /^put(Chunk|File|Directory)$/.test(operation.operationId)
  if (frame === undefined || !mayBeZstd || random.chance(0.6)) return
  request.body = frame
  request.headers = request.headers.filter(([name]) => name !== 'Content-Encoding')
  request.headers.push(['Content-Encoding', 'zstd'])
}

function bodyOf(
  { operationId }: Operation,
  { content, delta }: Subject,
  { random, universe }: Making,
): Buffer | undefined {
  if (operationId === 'putBatch') return random.pick(universe.batches)
  if (operationId === 'putTreeFile') return random.pick(universe.fresh).bytes
  if (operationId === 'commitCheckpoint') {
    const root = random.pick([...universe.directories, { id: universe.absent }]).id
    return Buffer.from(JSON.stringify(random.chance(0.6) ? { root } : { items: random.below(3) }))
  }
  if (operationId === 'addItems') {
    const items = universe.chunks
      .slice(0, 1 + random.below(4))
      .map(({ id, bytes }) => ({ id, size: bytes.length }))
    return Buffer.from(JSON.stringify({ first: random.chance(0.8) ? 0 : random.below(3), items }))
  }
  if (operationId === 'putSettings' && random.chance(0.8)) return Buffer.from('{"quotaBytes":1000000000000}')
  if (delta !== undefined) return delta.bytes
  return content !== undefined && /^put/.test(operationId) ? content.bytes : undefined
}

const head = '<?xml version="1.0" encoding="utf-8"?>\n'
const xmlOf: Readonly<Record<string, readonly string[]>> = {
  PROPFIND: [
    `${head}<D:propfind xmlns:D="DAV:"><D:allprop/></D:propfind>`,
    `${head}<propfind xmlns="DAV:"><propname/></propfind>`,
    `${head}<D:propfind xmlns:D="DAV:"><D:prop><D:getetag/><D:quota-used-bytes/><x xmlns="urn:x"/></D:prop></D:propfind>`,
  ],
  PROPPATCH: [
    `${head}<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:x">value</x></D:prop></D:set></D:propertyupdate>`,
    `${head}<D:propertyupdate xmlns:D="DAV:"><D:remove><D:prop><x xmlns="urn:x"/></D:prop></D:remove></D:propertyupdate>`,
  ],
  LOCK: [
    `${head}<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>`,
    `${head}<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>`,
  ],
  REPORT: [
    `${head}<D:sync-collection xmlns:D="DAV:"><D:sync-token/><D:sync-level>1</D:sync-level><D:prop><D:getetag/></D:prop></D:sync-collection>`,
    `${head}<D:sync-collection xmlns:D="DAV:"><D:sync-token>urn:x</D:sync-token><D:sync-level>infinite</D:sync-level><D:prop/></D:sync-collection>`,
  ],
}

/** A value that fits a schema of the contract, as far as the schemas here go. */
export function sample(given: Json | undefined, making: Making, depth = 0): unknown {
  const { random, universe } = making
  if (given === undefined) return {}
  const name = (given as { $ref?: string }).$ref?.split('/').pop()
  if (name === 'Id') return random.pick([...universe.chunks, ...universe.directories, ...universe.files]).id
  if (name === 'Timestamp') return '2026-01-02T03:04:05Z'
  const schema = followed(given) as Json & {
    type?: string
    minimum?: number
    maximum?: number
    minItems?: number
  }
  const choices = (schema.anyOf ?? schema.oneOf) as Json[] | undefined
  if (choices !== undefined) return sample(random.pick(choices), making, depth)
  if (schema.const !== undefined) return schema.const
  if (schema.enum !== undefined) return random.pick(schema.enum as unknown[])
  if (schema.type === 'object') return sampleObject(schema, making, depth)
  if (schema.type === 'array') {
    const length = Math.max(schema.minItems ?? 0, random.below(depth > 4 ? 1 : 4))
    return Array.from({ length }, () => sample(schema.items as Json, making, depth + 1))
  }
  if (schema.type === 'boolean') return random.chance(0.5)
  if (schema.type === 'integer' || schema.type === 'number') {
    const least = schema.minimum ?? 0
    return least + random.below(Math.min(1000, (schema.maximum ?? 1000) - least + 1))
  }
  const pattern = schema.pattern as string | undefined
  if (pattern?.includes('blake3')) return universe.absent
  if (pattern?.includes('[0-9]{0,19}')) return '1700000000000000000'
  return random.pick(sources)
}

function sampleObject(schema: Json, making: Making, depth: number): Json {
  const required = (schema.required ?? []) as string[]
  const known = Object.entries((schema.properties ?? {}) as Record<string, Json>)
  const kept = known.filter(([name]) => required.includes(name) || (depth < 5 && making.random.chance(0.4)))
  return Object.fromEntries(kept.map(([name, inner]) => [name, sample(inner, making, depth + 1)]))
}
