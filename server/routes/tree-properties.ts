/** PROPPATCH: RFC 4918, section 9.2. All of it or nothing. */
import type { DeadProperty, PropertyName } from '../catalog/live-tree.ts'
import type { Context } from '../http/context.ts'
import { type PropertyUpdate, propertyUpdates, xmlBody } from '../http/dav-bodies.ts'
import { secondsAsNs } from '../http/dav-headers.ts'
import { errorXml } from '../http/dav-problem.ts'
import { multistatusEnd, multistatusStart, propertyXml, propstat } from '../http/dav-xml.ts'
import { escapeXml } from '../http/xml.ts'
import type { Parts } from './parts.ts'
import { answerMultistatus } from './propfind.ts'
import { TreeRequest } from './tree-request.ts'

/** What the receiver itself knows; a value of the client's would be hidden, or be a lie. */
const protectedNames: ReadonlySet<PropertyName> = new Set([
  ...[
    'creationdate',
    'getcontentlength',
    'getcontenttype',
    'getetag',
    'getlastmodified',
    'lockdiscovery',
    'quota-available-bytes',
    'quota-used-bytes',
    'resourcetype',
    'supported-report-set',
    'supportedlock',
    'sync-token',
  ].map((local) => `DAV: ${local}`),
  'http://owncloud.org/ns checksums',
])

/** By this name clients set the time that getlastmodified tells. It is no property of its own. */
const mtimeName = 'DAV: lastmodified'

/** What the steps come to, in their order. */
interface Outcome {
  readonly set: DeadProperty[]
  readonly remove: PropertyName[]
  readonly mtimeNs: string | undefined
  /** Each name once, with the status that it has by itself. */
  readonly statuses: ReadonlyMap<PropertyName, Status>
}

type Status = 'ok' | 'protected' | 'conflict'

export async function patchTreeProperties(parts: Parts, ctx: Context): Promise<void> {
  const request = await TreeRequest.of(parts, ctx)
  const { vault, names } = request
  // Before the body, so that a client that waits to send it is spared that.
  await request.existing(vault.tree)
  const outcome = outcomeOf(propertyUpdates(await xmlBody(ctx, parts.questions)))
  const isRefused = [...outcome.statuses.values()].some((status) => status !== 'ok')
  const kind = await vault.tree.change(async (change) => {
    const record = await request.existing(change)
    await request.expectPreconditions(change, record)
    await request.expectUnlocked(change, names)
    if (isRefused) return record.kind
    const { set, remove, mtimeNs } = outcome
    if (set.length + remove.length > 0) await change.setDeadProperties(names, set, remove)
    if (mtimeNs !== undefined) await change.setTimes(names, { mtimeNs })
    return record.kind
  })
  answerMultistatus(ctx, document(request.hrefOf(names, kind), outcome, isRefused))
}

function outcomeOf(updates: readonly PropertyUpdate[]): Outcome {
  const last = new Map<PropertyName, PropertyUpdate>()
  const statuses = new Map<PropertyName, Status>()
  for (const update of updates) {
    const status = statusOf(update)
    if (status !== 'ok' || !statuses.has(update.name)) statuses.set(update.name, status)
    last.set(update.name, update)
  }
  const mtime = last.get(mtimeName)
  last.delete(mtimeName)
  const dead = [...last.values()]
  return {
    set: dead.flatMap(({ name, xml }) => (xml === undefined ? [] : [{ name, xml }])),
    remove: dead.flatMap(({ name, xml }) => (xml === undefined ? [name] : [])),
    mtimeNs: mtime === undefined ? undefined : timeOf(mtime.text),
    statuses,
  }
}

function statusOf({ name, xml, text }: PropertyUpdate): Status {
  if (protectedNames.has(name)) return 'protected'
  if (name !== mtimeName) return 'ok'
  if (xml === undefined) return 'protected'
  return timeOf(text) === undefined ? 'conflict' : 'ok'
}

/** Seconds since 1970, or a date as HTTP writes it, in nanoseconds. */
function timeOf(text: string): string | undefined {
  const ns = secondsAsNs(text)
  if (ns !== undefined) return ns
  const ms = /^[A-Za-z]{3},? .*\d/.test(text.trim()) ? Date.parse(text) : Number.NaN
  return Number.isNaN(ms) ? undefined : (BigInt(ms) * 1_000_000n).toString()
}

/** One propstat for each status. Where one property is refused, those that would do are 424: section 9.2.1. */
function document(href: string, { statuses }: Outcome, isRefused: boolean): string {
  const named = (wanted: Status): string[] =>
    [...statuses].flatMap(([name, status]) => (status === wanted ? [propertyXml(name, '')] : []))
  const stats: [string[], string, string][] = [
    [named('ok'), isRefused ? '424 Failed Dependency' : '200 OK', ''],
    [named('protected'), '403 Forbidden', errorXml('cannot-modify-protected-property')],
    [named('conflict'), '409 Conflict', ''],
  ]
  const inner = stats.flatMap(([elements, status, error]) =>
    elements.length === 0 ? [] : [propstat(elements, status, error)],
  )
  const response = `<D:response><D:href>${escapeXml(href)}</D:href>${inner.join('')}</D:response>\n`
  return multistatusStart + response + multistatusEnd
}
