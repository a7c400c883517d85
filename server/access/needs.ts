/**
 * What each request needs. `routes/resource.ts` looks here for every resource that it makes, so none can be forgotten;
 * it asks before the vault is opened and before a body is read. openapi.yaml says the same in `x-needs`, and a test
 * compares the two.
 *
 * What a row does not say: HEAD is GET. OPTIONS, and methods that the resource has not got, need `see` in a vault, and
 * elsewhere to be `known`. Paths that nothing is at need to be `known`. A row also stands for its path with a slash at
 * the end, and for all that is below a resource that has paths below it.
 */
import { Problem } from '../../protocol/problem.ts'
import { parseVaultName } from '../../protocol/url.ts'
import { allows, type Identity, type Need, nobody, rights } from './identity.ts'

/**
 * Needs that are about no vault: `anyone` is not even asked who they are; who is `known` has logged in; `metrics` is a
 * right of its own.
 */
export type ReceiverNeed = 'anyone' | 'known' | 'metrics'
/** Of a list all are needed. */
export type RouteNeed = Need | ReceiverNeed | readonly Need[]
export type RouteNeeds = Readonly<Record<string, RouteNeed>>

export const needsOfRoutes: Readonly<Record<string, RouteNeeds>> = {
  // Which vaults they list depends on who asks.
  '/': { GET: 'known', PROPFIND: 'known' },
  '/-/health': { GET: 'anyone' },
  '/-/openapi.yaml': { GET: 'known' },
  '/-/metrics': { GET: 'metrics' },

  // What GET and PROPFIND tell is less for who may not restore.
  '/:vault': { GET: 'see', PROPFIND: 'see', MKCOL: 'administer' },
  // Who sets the quota is an operator.
  '/:vault/settings': { GET: 'see', PUT: 'administer' },
  '/:vault/upkeep/collection': { GET: 'see', POST: 'administer', DELETE: 'administer' },
  '/:vault/upkeep/scrub': { GET: 'see', POST: 'administer', DELETE: 'administer' },
  '/:vault/upkeep/prune': { POST: 'administer' },

  // A patch tells whether a guess about its base is right: bit by bit that is reading.
  '/:vault/chunks': { POST: 'back-up' },
  '/:vault/chunks/missing': { POST: 'back-up' },
  '/:vault/chunks/fetch': { POST: 'restore' },
  '/:vault/chunks/:id': { GET: 'restore', PUT: 'back-up', PATCH: ['restore', 'back-up'] },
  '/:vault/files/:id': { GET: 'restore', PUT: 'back-up', PATCH: ['restore', 'back-up'] },
  '/:vault/dirs/:id': {
    GET: 'restore',
    PROPFIND: 'restore',
    PUT: 'back-up',
    PATCH: ['restore', 'back-up'],
  },

  // `back-up` is for sources of one's own (catalog/source-owner.ts), and deletes nothing but what is still open.
  // Everything else of these, on every source, is for `change`.
  '/:vault/checkpoints': { GET: 'see' },
  '/:vault/checkpoints/:source': { GET: 'see', PROPFIND: 'see', POST: 'back-up' },
  '/:vault/checkpoints/:source/:number': { GET: 'see', DELETE: 'back-up' },
  '/:vault/checkpoints/:source/:number/items': { GET: 'see', POST: 'back-up' },
  '/:vault/checkpoints/:source/:number/commit': { POST: 'back-up' },
  '/:vault/checkpoints/:source/:number/pin': { PUT: 'change', DELETE: 'change' },

  '/:vault/snapshots': { GET: 'restore', PROPFIND: 'restore' },
  // COPY writes into the tree.
  '/:vault/snapshots/:source/:number': { GET: 'restore', PROPFIND: 'restore', COPY: 'change' },
  // POST freezes.
  '/:vault/tree': {
    GET: 'restore',
    PROPFIND: 'restore',
    REPORT: 'restore',
    PUT: 'change',
    DELETE: 'change',
    MKCOL: 'change',
    COPY: 'change',
    MOVE: 'change',
    PROPPATCH: 'change',
    LOCK: 'change',
    UNLOCK: 'change',
    POST: 'change',
  },
  '/:vault/trash': { GET: 'restore', PROPFIND: 'restore' },
  '/:vault/trash/:item': { GET: 'restore', PROPFIND: 'restore', MOVE: 'change', DELETE: 'change' },
}

/** The row of a route's pattern. TypeError when there is none, or when it lacks one of the methods. */
export function needsOf(pattern: string, methods: readonly string[]): RouteNeeds {
  const row = needsOfRoutes[rowName(pattern)]
  if (row === undefined) throw new TypeError(`server/access/needs.ts does not say what ${pattern} needs`)
  for (const method of methods) {
    if (!Object.hasOwn(row, method)) {
      throw new TypeError(`server/access/needs.ts does not say what ${method} ${pattern} needs`)
    }
  }
  return row
}

function rowName(pattern: string): string {
  return pattern.replace(/\/(?:\{\*path\})?$/, '') || '/'
}

/** What a method needs on the resource of that pattern. */
export function needOf(pattern: string, row: RouteNeeds, method: string): RouteNeed {
  const name = method === 'HEAD' ? 'GET' : method
  if (Object.hasOwn(row, name)) return row[name] as RouteNeed
  return pattern.startsWith('/:vault') ? 'see' : 'known'
}

/** Whether a request is answered without asking who makes it. */
export function isForAnyone(method: string, path: string): boolean {
  const row = Object.hasOwn(needsOfRoutes, path) ? needsOfRoutes[path] : undefined
  return row !== undefined && needOf(path, row, method) === 'anyone'
}

/** Only this makes a vault, so only here it counts for nothing whether there is one. */
function makesVault(pattern: string, method: string): boolean {
  return method === 'MKCOL' && rowName(pattern) === '/:vault'
}

/**
 * Lets pass whoever may make the request. A vault on which somebody has no right answers as one that is not there:
 * Problem `vault-not-found`. Problems `forbidden`, `invalid-name`, and `unauthenticated` for nobody.
 */
export function expectMay(
  who: Identity,
  need: RouteNeed,
  { pattern, method, vault }: { pattern: string; method: string; vault: string },
): void {
  if (need === 'anyone') return
  if (who === nobody) throw new Problem('unauthenticated', 'who asks is not known')
  if (need === 'known') return
  if (need === 'metrics') {
    if (!who.mayReadMetrics)
      throw new Problem(
        'forbidden',
        `${who.name} may not read the metrics; whoever runs the receiver allows it: chunkdav user grant ${who.name} --metrics`,
      )
    return
  }
  const right = who.rightOn(parseVaultName(vault))
  if (right === undefined && !makesVault(pattern, method)) throw vaultNotFound(vault)
  for (const each of typeof need === 'string' ? [need] : need) {
    if (right !== undefined && allows(right, each)) continue
    const enough = rights.filter((right) => allows(right, each)).join(', ')
    const has = right === undefined ? 'no right there' : `the right ${right}`
    throw new Problem(
      'forbidden',
      `this needs one of these rights on ${vault}: ${enough}; ${who.name} has ${has}`,
      { extensions: { need: each } },
    )
  }
}

/** The same words whether there is no such vault, or none for who asks. */
export function vaultNotFound(name: string): Problem {
  return new Problem(
    'vault-not-found',
    `there is no vault ${name}; who has the right admin on that name creates it`,
  )
}
