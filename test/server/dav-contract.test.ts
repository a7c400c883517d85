/**
 * openapi.yaml and the router tell the same of the tree, the snapshots and the trash: which methods there are, and
 * that each documented answer can come. What each answer means is for the tests of the methods.
 */
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeDirectoryObject } from '../../protocol/objects.ts'
import {
  contract,
  documentedStatuses,
  type Json,
  listOperations,
  observe,
  type ResponseObserver,
  writeMethods,
} from '../support/openapi.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { attributes, chunk, fileEntry, put } from './requests.ts'

let server: TestReceiver
let observer: ResponseObserver
let lockToken = ''

beforeAll(async () => {
  server = await startReceiver({ unobserved: true })
  observer = observe(server.receiver.server)
  await commitSnapshot()
})
afterAll(async () => {
  await server.stop()
  observer.assertClean()
})

/** `s/1`: a file, a directory and a symlink. */
async function commitSnapshot(): Promise<void> {
  const post = (path: string, body: unknown): Promise<Response> =>
    fetch(`${server.vaultUrl}/checkpoints/s/${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' },
    })
  await post('', { kind: 'dir' })
  const file = chunk('in a snapshot\n')
  const root = encodeDirectoryObject([
    fileEntry('a', file),
    { kind: 'symlink', name: 'link', ...attributes, target: 'a' },
  ])
  await put(server, 'chunks', file)
  await put(server, 'dirs', root)
  expect((await post('1/commit', { root: root.id })).status).toBe(200)
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

/** One request, below the vault unless the path begins with a slash; it goes out as it is. */
async function ask(
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body = '',
): Promise<Answer> {
  const { hostname, port } = new URL(server.url)
  return await new Promise((resolve, reject) => {
    const length = body === '' ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
    const options = {
      hostname,
      port,
      method,
      path: path.startsWith('/') ? path : `/home/${path}`,
      agent: false,
      headers: { ...length, ...headers },
    }
    const asked = request(options, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (piece) => {
        text += piece
      })
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }))
      answer.on('error', reject)
    })
    asked.on('error', reject)
    asked.end(body)
  })
}

const areas = ['tree', 'snapshots', 'trash']
const templates = Object.keys(contract.paths as Json).filter((template) =>
  areas.some((area) => template.startsWith(`/{vault}/${area}/`)),
)
const operations = listOperations().filter(({ template }) => templates.includes(template))
const methodsOf = (template: string): string[] =>
  operations.filter((operation) => operation.template === template).map(({ method }) => method)

/** A path that fits, below the vault, on which nothing stands that a request could harm. */
function pathOf(template: string, path = ''): string {
  return template
    .replace('/{vault}/', '')
    .replace('{source}', 's')
    .replace('{number}', '1')
    .replace('{item}', '9')
    .replace('{path}', path)
}

describe.each(templates)('%s', (template) => {
  const documented = methodsOf(template)

  test('OPTIONS allows what is documented', async () => {
    const { headers } = await ask('OPTIONS', pathOf(template))
    expect(String(headers.allow).split(', ').sort()).toEqual([...documented].sort())
  })

  test.each(documented)('%s is there', async (method) => {
    const statuses = new Set<number>()
    for (const path of ['', 'absent', 'absent/']) {
      statuses.add((await ask(method, pathOf(template, path))).status)
    }
    expect([...statuses].filter((status) => status !== 405 && status !== 501)).not.toEqual([])
  })

  const others = [...writeMethods, 'REPORT', 'SEARCH', 'ACL'].filter((method) => !documented.includes(method))
  test.each(others)('%s is not', async (method) => {
    const readOnly = ((contract.paths as Json)[template] as Json)['x-read-only'] === true
    const { status, headers } = await ask(method, pathOf(template))
    expect(status).toBe(readOnly && writeMethods.has(method) ? 403 : 405)
    if (status === 405) expect(String(headers.allow).split(', ').sort()).toEqual([...documented].sort())
  })
})

// -- every documented answer --------------------------------------------------------------------------

const json = { 'Content-Type': 'application/json' }
const xml = { 'Content-Type': 'application/xml' }
const lockInfo =
  '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>'
const sync = (token: string): string =>
  `<D:sync-collection xmlns:D="DAV:"><D:sync-token>${token}</D:sync-token><D:sync-level>1</D:sync-level><D:prop><D:getetag/></D:prop></D:sync-collection>`
const setColour =
  '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><c:colour xmlns:c="urn:c">red</c:colour></D:prop></D:set></D:propertyupdate>'
const to = (path: string): Record<string, string> => ({ Destination: `/home/${path}` })
const never = { 'If-Match': '"never"' }
const condition = { If: '(["never"])' }

type Row = [
  method: string,
  path: string,
  status: number,
  headers?: Record<string, string> | (() => Record<string, string>),
  body?: string,
]

const tree: readonly Row[] = [
  // Files.
  ['PUT', 'tree/a', 201, {}, 'one\n'],
  ['PUT', 'tree/a', 204, {}, 'two\n'],
  ['PUT', 'tree/a', 400, { 'Content-Range': 'bytes 0-3/8' }, 'two\n'],
  ['PUT', 'tree/', 405, {}, 'x'],
  ['PUT', 'tree/none/a', 409, {}, 'x'],
  ['PUT', 'tree/a', 412, never, 'x'],
  ['PUT', 'tree/a', 415, { 'Content-Encoding': 'gzip' }, 'x'],
  ['PUT', 'tree/a', 422, { 'OC-Checksum': `MD5:${'0'.repeat(32)}` }, 'x'],
  ['GET', 'tree/a', 200],
  ['HEAD', 'tree/a', 200],
  ['GET', 'tree/a', 206, { Range: 'bytes=1-2' }],
  ['GET', 'tree/a', 304, { 'If-None-Match': '*' }],
  ['HEAD', 'tree/a', 304, { 'If-None-Match': '*' }],
  ['GET', 'tree/a', 412, never],
  ['HEAD', 'tree/a', 412, never],
  ['GET', 'tree/a', 416, { Range: 'bytes=9-' }],
  ['GET', 'tree/', 200],
  ['HEAD', 'tree/', 200],
  ['GET', 'tree/?archive=tar', 406],
  ['HEAD', 'tree/?archive=tar', 406],
  ['OPTIONS', 'tree/', 204],
  ['OPTIONS', 'tree/', 412, condition],
  // Collections.
  ['MKCOL', 'tree/c', 201],
  ['MKCOL', 'tree/c', 405],
  ['MKCOL', 'tree/none/c', 409],
  ['MKCOL', 'tree/d', 412, condition],
  ['MKCOL', 'tree/d', 415, xml, '<x/>'],
  ['PUT', 'tree/c/below', 201, {}, 'below\n'],
  // Copies.
  ['COPY', 'tree/a', 201, to('tree/b')],
  ['COPY', 'tree/a', 204, to('tree/b')],
  ['COPY', 'tree/a', 403, to('tree/a')],
  ['COPY', 'tree/a', 409, to('tree/none/b')],
  ['COPY', 'tree/a', 412, { ...to('tree/b'), Overwrite: 'F' }],
  ['COPY', 'tree/a', 502, { Destination: 'http://elsewhere.example/home/tree/b' }],
  ['MOVE', 'tree/b', 201, to('tree/m')],
  ['COPY', 'tree/a', 201, to('tree/b')],
  ['MOVE', 'tree/m', 204, to('tree/b')],
  ['MOVE', 'tree/b', 403, to('tree/b')],
  ['MOVE', 'tree/b', 409, to('tree/none/b')],
  ['MOVE', 'tree/b', 412, { ...to('tree/a'), Overwrite: 'F' }],
  ['MOVE', 'tree/b', 502, { Destination: 'http://elsewhere.example/home/tree/b' }],
  // Properties.
  ['PROPFIND', 'tree/', 207, { Depth: '1' }],
  ['PROPFIND', 'tree', 207, { Depth: '0' }],
  ['PROPFIND', 'tree/', 403, { Depth: 'infinity' }],
  ['PROPFIND', 'tree/', 412, { Depth: '0', ...condition }],
  ['PROPFIND', 'tree/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'tree/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
  ['PROPPATCH', 'tree/a', 207, xml, setColour],
  ['PROPPATCH', 'tree/a', 412, { ...xml, ...condition }, setColour],
  ['PROPPATCH', 'tree/a', 413, xml, `<x>${' '.repeat(2_000_000)}</x>`],
  ['PROPPATCH', 'tree/a', 415, { 'Content-Type': 'image/png' }, 'x'],
  ['REPORT', 'tree/', 207, { ...xml, Depth: '0' }, sync('')],
  ['REPORT', 'tree/', 403, { ...xml, Depth: '0' }, sync('urn:nobody:1')],
  ['REPORT', 'tree/', 412, { ...xml, Depth: '0', ...condition }, sync('')],
  ['REPORT', 'tree/', 413, { ...xml, Depth: '0' }, `<x>${' '.repeat(2_000_000)}</x>`],
  ['REPORT', 'tree/', 415, { 'Content-Type': 'image/png', Depth: '0' }, 'x'],
  // Locks.
  ['LOCK', 'tree/new', 201, xml, lockInfo],
  ['LOCK', 'tree/none/new', 409, xml, lockInfo],
  ['LOCK', 'tree/a', 412, { ...xml, ...condition }, lockInfo],
  ['LOCK', 'tree/a', 413, xml, `<x>${' '.repeat(2_000_000)}</x>`],
  ['LOCK', 'tree/a', 415, { 'Content-Type': 'image/png' }, 'x'],
  ['LOCK', 'tree/c/below', 200, xml, lockInfo],
  ['LOCK', 'tree/c/below', 423, xml, lockInfo],
  ['PUT', 'tree/c/below', 423, {}, 'x'],
  ['PROPPATCH', 'tree/c/below', 423, xml, setColour],
  ['DELETE', 'tree/c/below', 423],
  ['COPY', 'tree/a', 423, to('tree/c/below')],
  ['MOVE', 'tree/c/below', 423, to('tree/x')],
  ['DELETE', 'tree/c', 207],
  ['MOVE', 'tree/c', 207, to('tree/x')],
  ['COPY', 'tree/a', 207, to('tree/c')],
  ['LOCK', 'tree/c', 207, { ...xml, Depth: 'infinity' }, lockInfo],
  ['UNLOCK', 'tree/a', 409, () => ({ 'Lock-Token': lockToken })],
  ['UNLOCK', 'tree/c/below', 412, () => ({ 'Lock-Token': lockToken, ...condition })],
  ['UNLOCK', 'tree/c/below', 204, () => ({ 'Lock-Token': lockToken })],
  ['LOCK', 'tree/c', 200, { ...xml, Depth: 'infinity' }, lockInfo],
  ['MKCOL', 'tree/c/d', 423],
  ['UNLOCK', 'tree/c', 204, () => ({ 'Lock-Token': lockToken })],
  // Freezing.
  ['POST', 'tree/', 201, json, '{"freeze":{}}'],
  ['POST', 'tree/', 400, json, '{"thaw":{}}'],
  ['POST', 'tree/a', 405, json, '{"freeze":{}}'],
  ['POST', 'tree/', 412, { ...json, ...condition }, '{"freeze":{}}'],
  ['POST', 'tree/', 413, json, `{"freeze":{}}${' '.repeat(3_000_000)}`],
  ['POST', 'tree/', 415, { 'Content-Type': 'image/png' }, 'x'],
  // Removing.
  ['DELETE', 'tree/', 403],
  ['DELETE', 'tree/a', 412, never],
  ['DELETE', 'tree/a', 204],
]

const snapshots: readonly Row[] = [
  ['GET', 'snapshots/', 200],
  ['HEAD', 'snapshots/', 200],
  ['GET', 'snapshots/?archive=tar', 406],
  ['HEAD', 'snapshots/?archive=tar', 406],
  ['PROPFIND', 'snapshots/', 207, { Depth: '1' }],
  ['PROPFIND', 'snapshots/', 403],
  ['GET', 'snapshots/', 412, condition],
  ['HEAD', 'snapshots/', 412, condition],
  ['OPTIONS', 'snapshots/', 412, condition],
  ['PROPFIND', 'snapshots/', 412, { Depth: '0', ...condition }],
  ['PROPFIND', 'snapshots/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'snapshots/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
  ['GET', 'snapshots/s/', 200],
  ['HEAD', 'snapshots/s/', 200],
  ['GET', 'snapshots/s/?archive=tar', 406],
  ['HEAD', 'snapshots/s/?archive=tar', 406],
  ['PROPFIND', 'snapshots/s/', 207, { Depth: '1' }],
  ['PROPFIND', 'snapshots/s/', 403],
  ['GET', 'snapshots/s/', 412, condition],
  ['HEAD', 'snapshots/s/', 412, condition],
  ['OPTIONS', 'snapshots/s/', 412, condition],
  ['PROPFIND', 'snapshots/s/', 412, { Depth: '0', ...condition }],
  ['PROPFIND', 'snapshots/s/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'snapshots/s/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
  ['GET', 'snapshots/s/latest/', 200],
  ['GET', 'snapshots/s/1/?archive=tar', 200],
  ['GET', 'snapshots/s/1/', 200, { Accept: 'application/x-tar' }],
  ['GET', 'snapshots/s/1/?archive=zip', 400],
  ['GET', 'snapshots/s/1/a', 200],
  ['GET', 'snapshots/s/latest/a', 200],
  ['HEAD', 'snapshots/s/1/a', 200],
  ['GET', 'snapshots/s/1/a', 206, { Range: 'bytes=1-2' }],
  ['GET', 'snapshots/s/1/a', 304, { 'If-None-Match': '*' }],
  ['HEAD', 'snapshots/s/1/a', 304, { 'If-None-Match': '*' }],
  ['GET', 'snapshots/s/1/a', 412, never],
  ['HEAD', 'snapshots/s/1/a', 412, never],
  ['GET', 'snapshots/s/1/a', 416, { Range: 'bytes=99-' }],
  ['PROPFIND', 'snapshots/s/1/', 207, { Depth: '1' }],
  ['PROPFIND', 'snapshots/s/1/', 403],
  ['OPTIONS', 'snapshots/s/1/', 412, condition],
  ['PROPFIND', 'snapshots/s/1/', 412, { Depth: '0', ...condition }],
  ['PROPFIND', 'snapshots/s/1/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'snapshots/s/1/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
]

/** Out of a snapshot into the tree. */
const restored: readonly Row[] = [
  ['COPY', 'snapshots/s/1/a', 201, to('tree/from-s')],
  ['COPY', 'snapshots/s/1/a', 204, to('tree/from-s')],
  ['COPY', 'snapshots/s/1/a', 403, to('snapshots/s/1/b')],
  ['COPY', 'snapshots/s/1/a', 409, to('tree/none/a')],
  ['COPY', 'snapshots/s/1/a', 412, { ...to('tree/from-s'), Overwrite: 'F' }],
  ['COPY', 'snapshots/s/1/a', 502, { Destination: 'http://elsewhere.example/home/tree/b' }],
  ['LOCK', 'tree/from-s', 200, xml, lockInfo],
  ['COPY', 'snapshots/s/1/a', 423, to('tree/from-s')],
  ['LOCK', 'tree/c/below', 200, xml, lockInfo],
  ['COPY', 'snapshots/s/1/a', 207, to('tree/c')],
]

/** Item 1 is the first `a`, overwritten; 2 the `b` that COPY replaced, and so on. */
const trash: readonly Row[] = [
  ['GET', 'trash/', 200],
  ['GET', 'trash/', 200, { Accept: 'application/json' }],
  ['HEAD', 'trash/', 200],
  ['GET', 'trash/?archive=tar', 406],
  ['HEAD', 'trash/?archive=tar', 406],
  ['GET', 'trash/', 412, condition],
  ['HEAD', 'trash/', 412, condition],
  ['OPTIONS', 'trash/', 412, condition],
  ['PROPFIND', 'trash/', 412, { Depth: '0', ...condition }],
  ['PROPFIND', 'trash/', 207, { Depth: '1' }],
  ['PROPFIND', 'trash/', 403],
  ['PROPFIND', 'trash/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'trash/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
  ['GET', 'trash/1/', 200],
  ['GET', 'trash/1/?archive=tar', 406],
  ['HEAD', 'trash/1/?archive=tar', 406],
  ['OPTIONS', 'trash/1/', 412, condition],
  ['PROPFIND', 'trash/1/', 412, { Depth: '0', ...condition }],
  ['GET', 'trash/1/a', 200],
  ['HEAD', 'trash/1/a', 200],
  ['GET', 'trash/1/a', 206, { Range: 'bytes=1-2' }],
  ['GET', 'trash/1/a', 304, { 'If-None-Match': '*' }],
  ['HEAD', 'trash/1/a', 304, { 'If-None-Match': '*' }],
  ['GET', 'trash/1/a', 412, never],
  ['HEAD', 'trash/1/a', 412, never],
  ['GET', 'trash/1/a', 416, { Range: 'bytes=99-' }],
  ['PROPFIND', 'trash/1/', 207, { Depth: '1' }],
  ['PROPFIND', 'trash/1/', 403],
  ['PROPFIND', 'trash/1/', 413, { Depth: '0', ...xml }, `<x>${' '.repeat(70_000)}</x>`],
  ['PROPFIND', 'trash/1/', 415, { Depth: '0', 'Content-Type': 'image/png' }, 'x'],
  ['MOVE', 'trash/1/a', 403, to('trash/2/a')],
  ['MOVE', 'trash/1/a', 409, to('tree/none/a')],
  ['MOVE', 'trash/1/a', 502, { Destination: 'http://elsewhere.example/home/tree/b' }],
  ['MOVE', 'trash/1/a', 201, to('tree/restored')],
  ['MOVE', 'trash/2/b', 412, { ...to('tree/restored'), Overwrite: 'F' }],
  ['LOCK', 'tree/restored', 200, xml, lockInfo],
  ['MOVE', 'trash/2/b', 423, to('tree/restored')],
  ['UNLOCK', 'tree/restored', 204, () => ({ 'Lock-Token': lockToken })],
  ['MOVE', 'trash/2/b', 204, to('tree/restored')],
  ['MOVE', 'trash/3/b', 207, to('tree/c')],
  ['DELETE', 'trash/3', 412, condition],
  ['DELETE', 'trash/3', 204],
  ['DELETE', 'trash/', 403],
]

test.each<Row>([...tree, ...snapshots, ...restored, ...trash])(
  '%s %s is answered %i',
  async (method, path, status, headers, body) => {
    const sent = typeof headers === 'function' ? headers() : headers
    const answer = await ask(method, path, sent, body)
    expect(`${answer.status} ${answer.status === status ? '' : answer.body}`.trim()).toBe(String(status))
    if (method === 'LOCK' && answer.headers['lock-token'] !== undefined)
      lockToken = String(answer.headers['lock-token'])
  },
)

/** For every operation alike: a web page of somebody else's, an absent path and vault, an expectation nobody knows. */
test.each(operations)('$method $template, asked wrongly', async ({ method, template }) => {
  const path = pathOf(template, 'absent')
  await ask(method, path, { Origin: 'http://elsewhere.example' })
  await ask(method, path.replace('snapshots/s/', 'snapshots/none/'), { Depth: '0', ...to('tree/x') })
  await ask(method, `/none/${path}`)
  await ask(method, path, { Expect: 'the unexpected' })
})

/** Faults of the disk and of the receiver, and damage that is found: for tests that make them. */
const elsewhere = [500, 503, 507]
/** Where there are users, or clients that are slow or greedy: tenants.test.ts and others make these. */
const ofClients = [401, 408, 429]

/** Refused for want of a right alone. */
function isForRights(template: string, method: string, status: number): boolean {
  const item = (contract.paths as Json)[template] as Json
  const { responses } = (item[method.toLowerCase()] ?? (item.additionalOperations as Json)[method]) as Json
  return ((responses as Json)[status] as Json).$ref === '#/components/responses/Forbidden'
}
const ofDamage = 'POST /{vault}/tree/{path} 409'

test('and that is every documented answer', () => {
  const documented = operations.flatMap(({ template, method }) =>
    documentedStatuses(template, method)
      .filter((status) => ![...elsewhere, ...ofClients].includes(status))
      .filter((status) => !isForRights(template, method, status))
      .map((status) => `${method} ${template} ${status}`),
  )
  expect(documented.filter((answer) => !observer.seen.has(answer))).toEqual([ofDamage])
})
