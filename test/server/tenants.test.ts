/**
 * Who may do what: every operation of openapi.yaml, asked by everybody there can be, in a vault of theirs, in one of
 * others, and in one that is not there. What must come is decided here and by `x-needs` alone, not by the receiver's
 * own table. `npm run proof:tenants` prints how many were asked.
 */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { contract, type Json, listOperations } from '../support/openapi.ts'
import { startReceiver, type TestReceiver } from '../support/receiver.ts'
import { writeUsers } from '../support/users.ts'
import { type Asked, exchange, furnish, inVault, type Prepare, sampleOf } from './tenant-requests.ts'

/** What each right is good for, once more: docs/access.md. */
const allowed: Record<string, readonly string[]> = {
  read: ['see', 'restore'],
  'append-only': ['see', 'back-up'],
  'append+read': ['see', 'restore', 'back-up'],
  write: ['see', 'restore', 'back-up', 'change'],
  admin: ['see', 'restore', 'back-up', 'change', 'administer'],
}
const rights = Object.keys(allowed) as ('read' | 'append-only' | 'append+read' | 'write' | 'admin')[]
/** `none` and `metrics` are known, and have no right on the vault. */
const users = [...rights, 'none', 'metrics', 'operator', 'expired', 'nobody'] as const
type User = (typeof users)[number]
const isKnown = (user: User): boolean => user !== 'expired' && user !== 'nobody'

/** Of names equally long: one of ours, two of others (nobody has ever opened the second), and none. */
const vaults = ['tenants', 'strange', 'unmoved', 'nowhere'] as const
type VaultName = (typeof vaults)[number]

let dataDir: string
let server: TestReceiver
let tokens: Record<string, string>
let asked = 0

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'chunkdav-tenants-'))
  tokens = await writeUsers(dataDir, {
    ...Object.fromEntries(rights.map((right) => [right, { grants: { tenants: right } }])),
    none: { grants: { other: 'admin' } },
    metrics: { metrics: true },
    operator: { grants: { '*': 'admin' }, metrics: true },
    expired: { grants: { '*': 'admin' }, metrics: true, expired: true },
  })
  server = await startReceiver({ dataDir })
  for (const vault of ['tenants', 'strange', 'unmoved']) await server.receiver.vaults.create(vault)
  for (const vault of ['tenants', 'strange']) await furnish(preparing(vault))
})

afterAll(async () => {
  console.log(`tenants: ${asked} requests, each answered as it should be`)
  await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

/** For what a request needs to be there. */
function preparing(vault: string): Prepare {
  return async (request, by = 'operator') => {
    const answer = await exchange(server.url, tokens[by], inVault(request, vault))
    if (answer.status >= 400) {
      throw new Error(`${request.method} ${request.path} by ${by}: ${answer.status} ${answer.body}`)
    }
    return answer.body
  }
}

async function ask(user: User, request: Asked, vault: string) {
  asked++
  return await exchange(server.url, user === 'nobody' ? undefined : tokens[user], inVault(request, vault))
}

/** The right of a user on a vault. */
function rightOf(user: User, vault: VaultName): string | undefined {
  if (user === 'operator') return 'admin'
  return vault === 'tenants' && Object.hasOwn(allowed, user) ? user : undefined
}

function needsOf(template: string, method: string): string[] {
  const item = (contract.paths as Json)[template] as Json
  const operation = (item[method.toLowerCase()] ?? (item.additionalOperations as Json)[method]) as Json
  return [operation['x-needs']].flat() as string[]
}

function mayDo(user: User, vault: VaultName, needs: readonly string[]): boolean {
  const right = rightOf(user, vault)
  return right !== undefined && needs.every((need) => allowed[right]?.includes(need))
}

/** GET is asked as HEAD too. */
const operations = listOperations().flatMap(({ template, method }) =>
  [method, ...(method === 'GET' ? ['HEAD'] : [])].map((name) => ({ template, method: name })),
)
const distinct = [...new Map(operations.map((each) => [`${each.method} ${each.template}`, each])).values()]
const inVaults = distinct.filter(({ template }) => template.startsWith('/{vault}'))
const elsewhere = distinct.filter(({ template }) => !template.startsWith('/{vault}'))
const declared = ({ template, method }: (typeof distinct)[number]): string[] => {
  const has = (name: string): boolean =>
    listOperations().some((each) => each.template === template && each.method === name)
  return needsOf(template, method === 'HEAD' && !has('HEAD') ? 'GET' : method)
}

test('there are operations, and each says what it needs', () => {
  expect(distinct.length).toBeGreaterThan(100)
  const known = [...(allowed.admin as string[]), 'anyone', 'known', 'metrics']
  for (const operation of distinct) {
    const needs = declared(operation)
    expect(needs.length, operation.template).toBeGreaterThan(0)
    for (const need of needs) expect(known).toContain(need)
  }
})

test.each(elsewhere)('$method $template', async (operation) => {
  const { template, method } = operation
  const [need] = declared(operation)
  for (const user of users) {
    const request = await sampleOf(template, method, { prepare: preparing('tenants'), owner: 'operator' })
    // Who says that it is them is taken at their word nowhere, not even where it need not be said.
    const expected =
      need === 'anyone'
        ? user === 'expired'
          ? 401
          : 200
        : !isKnown(user)
          ? 401
          : need === 'metrics' && user !== 'metrics' && user !== 'operator'
            ? 403
            : 200
    const { status } = await ask(user, request, 'tenants')
    const shown = status === 204 || status === 207 ? 200 : status
    expect([user, shown]).toEqual([user, expected])
  }
})

/** What a request that somebody may make is answered where it cannot succeed; anything else is below 400. */
const unsuccessful: Record<string, number> = {
  'MKCOL /{vault}/': 405,
}

test.each(inVaults)('$method $template', async (operation) => {
  const { template, method } = operation
  const needs = declared(operation)
  const name = `${method} ${template}`
  for (const user of users) {
    // Who may have checkpoints goes on with one of theirs.
    const owner = mayDo(user, 'tenants', ['back-up']) && user !== 'operator' ? user : 'operator'
    const given = { prepare: preparing('tenants'), owner }
    const own = await ask(user, await sampleOf(template, method, given), 'tenants')
    if (!isKnown(user)) expect([name, user, own.status]).toEqual([name, user, 401])
    else if (mayDo(user, 'tenants', needs)) {
      const code = `${own.status} ${own.body}`
      if (unsuccessful[name] !== undefined)
        expect([name, user, own.status]).toEqual([name, user, unsuccessful[name]])
      else expect(own.status, `${name} by ${user}: ${code}`).toBeLessThan(400)
    } else if (rightOf(user, 'tenants') !== undefined || name === 'MKCOL /{vault}/') {
      expect([name, user, own.status]).toEqual([name, user, 403])
      if (method !== 'HEAD') expect(own.code, name).toBe('forbidden')
    } else {
      expect([name, user, own.status]).toEqual([name, user, 404])
      if (method !== 'HEAD') expect(own.code, name).toBe('vault-not-found')
    }
  }
})

test.each(inVaults)('$method $template in a vault of others', async ({ template, method }) => {
  const name = `${method} ${template}`
  const request = await sampleOf(template, method, { prepare: preparing('strange'), owner: 'operator' })
  for (const user of users.filter((each) => each !== 'operator')) {
    const answers: Record<string, unknown>[] = []
    for (const vault of ['strange', 'unmoved', 'nowhere'] as const) {
      const { status, headers, body } = await ask(user, request, vault)
      answers.push({ status, headers, body: body.replaceAll(vault, '{vault}') })
    }
    const [strange, unmoved, nowhere] = answers
    expect(strange, `${name} by ${user}`).toEqual(nowhere)
    expect(unmoved, `${name} by ${user}`).toEqual(nowhere)
    const expected = !isKnown(user) ? 401 : name === 'MKCOL /{vault}/' ? 403 : 404
    expect([name, user, strange?.status]).toEqual([name, user, expected])
  }
})

test('nothing of a vault was touched for those who have no right on it', async () => {
  expect(await readdir(join(dataDir, 'vaults', 'unmoved'))).toEqual([])
  expect((await readdir(join(dataDir, 'vaults'))).sort()).toEqual(['home', 'strange', 'tenants', 'unmoved'])
})

test('whoever is operator may do everything everywhere, but not where nothing is', async () => {
  for (const { template, method } of inVaults) {
    const name = `${method} ${template}`
    const request = await sampleOf(template, method, { prepare: preparing('strange'), owner: 'operator' })
    const { status, body } = await ask('operator', request, 'strange')
    if (unsuccessful[name] !== undefined) expect([name, status]).toEqual([name, unsuccessful[name]])
    else expect(status, `${name}: ${status} ${body}`).toBeLessThan(400)
    if (name === 'MKCOL /{vault}/') continue
    const absent = await ask('operator', request, 'nowhere')
    // What could be done with a vault that one may make.
    if (method === 'OPTIONS' && absent.status === 204) continue
    const hidden = await ask('none', request, 'strange')
    expect([name, { ...hidden, body: hidden.body.replaceAll('strange', 'nowhere') }]).toEqual([name, absent])
    expect([name, absent.status, absent.code]).toEqual([
      name,
      404,
      method === 'HEAD' ? undefined : 'vault-not-found',
    ])
  }
  const made = await ask('operator', { method: 'MKCOL', path: '/{vault}/' }, 'nowhere')
  expect(made.status).toBe(201)
})

test('a list has the vaults on which one has a right', async () => {
  const all = ['home', 'nowhere', 'strange', 'tenants', 'unmoved']
  for (const user of users.filter(isKnown)) {
    const names = all.filter((name) => rightOf(user, name as VaultName) !== undefined)
    const list = await ask(user, { method: 'GET', path: '/' }, '')
    expect([user, JSON.parse(list.body)]).toEqual([user, { vaults: names }])
    const dav = await ask(user, { method: 'PROPFIND', path: '/', headers: { depth: '1' } }, '')
    const hrefs = [...dav.body.matchAll(/<D:href>\/([^/]+)\/<\/D:href>/g)].map(([, name]) => name)
    expect([user, hrefs]).toEqual([user, names])
  }
})

test('a path that is nothing, and a method that is none', async () => {
  for (const user of users) {
    for (const vault of ['tenants', 'strange', 'nowhere'] as const) {
      const nothing = await ask(user, { method: 'GET', path: '/{vault}/no/such/thing' }, vault)
      expect([user, nothing.status]).toEqual([user, isKnown(user) ? 404 : 401])
      if (isKnown(user)) expect(nothing.code).toBe('not-found')
      const none = await ask(user, { method: 'DELETE', path: '/{vault}/' }, vault)
      const seen = rightOf(user, vault) !== undefined
      expect([user, vault, none.status]).toEqual([user, vault, !isKnown(user) ? 401 : seen ? 405 : 404])
    }
  }
})
