/** Uploads that are false, each in one way: none of them may leave a byte behind. */
import { hashId } from '../../../protocol/hash.ts'
import { compress } from '../../../protocol/zstd.ts'
import { blockOf, chunk } from '../../server/requests.ts'
import { falseBatch } from './nasty.ts'
import type { Random } from './random.ts'
import { playground, type Universe } from './universe.ts'
import type { WireRequest } from './wire-request.ts'

interface Asking {
  readonly host: string
  readonly authorization: string
  readonly count: number
}

interface Upload {
  readonly method: string
  readonly path: string
  readonly body: Buffer
  readonly headers?: [string, string][]
  readonly cutAt?: number
}

type Make = (universe: Universe, random: Random) => Upload | Promise<Upload>

const batchType: [string, string] = ['Content-Type', 'application/vnd.chunkdav.batch']

/** Content that nobody has sent. */
function fresh(random: Random): Buffer {
  return random.bytes(1000 + random.below(20_000))
}

const makers: readonly Make[] = [
  (universe, random) => ({ method: 'PUT', path: `chunks/${universe.absent}`, body: fresh(random) }),
  async (universe, random) => ({
    method: 'PUT',
    path: `chunks/${universe.absent}`,
    body: await compress(fresh(random)),
    headers: [['Content-Encoding', 'zstd']],
  }),
  (_, random) => {
    const { id, bytes } = chunk(fresh(random))
    return { method: 'PUT', path: `chunks/${id}`, body: bytes, cutAt: 0.5 + random.next() * 0.49 }
  },
  (universe, random) => ({
    method: 'PUT',
    path: `chunks/${chunk(fresh(random)).id}`,
    body: random.pick(universe.bombs),
    headers: [['Content-Encoding', 'zstd']],
  }),
  async (_, random) => {
    const items = Array.from({ length: 1 + random.below(5) }, () => chunk(fresh(random)))
    const swapped = items.map(({ bytes }, i) => ({ bytes, id: chunk(Buffer.from(`${i}`)).id }))
    return { method: 'POST', path: 'chunks/', body: await blockOf(swapped), headers: [batchType] }
  },
  async (_, random) => {
    const batch = await blockOf([chunk(fresh(random)), chunk(fresh(random))], 'identity')
    return { method: 'POST', path: 'chunks/', body: falseBatch(batch, random), headers: [batchType] }
  },
  async (_, random) => {
    const [one, two] = [await blockOf([chunk(fresh(random))]), await blockOf([chunk(fresh(random))])]
    const cut = Buffer.concat([one, two.subarray(0, two.length - 1 - random.below(two.length - 1))])
    return { method: 'POST', path: 'chunks/', body: cut, headers: [batchType] }
  },
  (_, random) => {
    const body = Buffer.from(`{"type":"directory","entries":[{"kind":"file","name":"${random.below(1e9)}"}]}`)
    return { method: 'PUT', path: `dirs/${hashId(body)}`, body }
  },
  (_, random) => {
    const body = Buffer.from(`{"type":"file","size":${random.below(1e9)},"parts":[],"more":1}`)
    return { method: 'PUT', path: `files/${hashId(body)}`, body }
  },
  (universe, random) => ({
    method: 'PATCH',
    path: `chunks/${chunk(fresh(random)).id}`,
    body: universe.deltas[0]?.bytes ?? Buffer.alloc(0),
    headers: [
      ['Content-Type', 'application/vnd.chunkdav.delta+zstd'],
      ['Chunkdav-Base', random.pick(universe.chunks).id],
    ],
  }),
  (_, random) => ({
    method: 'PUT',
    path: 'tree/cut.txt',
    body: fresh(random),
    cutAt: 0.5 + random.next() * 0.49,
  }),
  (_, random) => ({
    method: 'PUT',
    path: 'tree/none/below.txt',
    body: fresh(random),
  }),
  (_, random) => ({
    method: 'PUT',
    path: 'snapshots/laptop/1/a.txt',
    body: fresh(random),
  }),
]

export async function* refusedUploads(
  universe: Universe,
  random: Random,
  asking: Asking,
): AsyncGenerator<WireRequest> {
  for (let i = 0; i < asking.count; i++) {
    const upload = await (makers[i % makers.length] as Make)(universe, random)
    const login: [string, string][] =
      asking.authorization === '' ? [] : [['Authorization', asking.authorization]]
    yield {
      operationId: upload.path,
      method: upload.method,
      target: `/${playground}/${upload.path}`,
      version: 'HTTP/1.1',
      headers: [['Host', asking.host], ['Connection', 'close'], ...login, ...(upload.headers ?? [])],
      body: upload.body,
      framing: 'length',
      isFramed: upload.cutAt === undefined,
      cutAt: upload.cutAt,
      ending: upload.cutAt === undefined ? 'wait' : 'half-close',
      pieces: 1,
      times: 1,
      mutations: ['refused'],
    }
  }
}
