/** The XML bodies of methods that write, and of REPORT: RFC 4918, section 14; RFC 6578, section 6. */
import { isUtf8 } from 'node:buffer'
import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'
import { mayBeXml } from './context.ts'
import type { PropertyName } from './dav-xml.ts'
import type { MemoryBudget } from './memory-budget.ts'
import { withBody } from './request-body.ts'
import { childrenOf, elementXml, innerXml, nameOf, parseXml, textOf, type XmlElement } from './xml.ts'

/** Dead properties may hold documents; those that clients keep are short. */
const maxXmlBytes = 256 * 1024
/** So little needs no reservation. */
const uncountedBytes = 16 * 1024
/** What is parsed, for each byte. */
const parsedFactor = 8
/** What a value may become when it is made self-contained: every property repeats the namespaces around it. */
const maxValueBytes = 256 * 1024

/**
 * The body's root element, or undefined when there is no body. Problems `unsupported-media-type`,
 * `invalid-request`, and those of reading a body.
 */
export async function xmlBody(ctx: Context, budget: MemoryBudget): Promise<XmlElement | undefined> {
  if (!mayBeXml(ctx)) {
    throw new Problem('unsupported-media-type', `the body of ${ctx.method} is XML`)
  }
  const length = Number(ctx.get('Content-Length') || maxXmlBytes)
  const rules = { maxBytes: maxXmlBytes, decodedBytes: parsedFactor * Math.min(length, maxXmlBytes) }
  return await withBody(ctx, budget, { ...rules, uncountedBytes }, async ({ bytes }) => {
    return bytes.length === 0 ? undefined : parseXml(xmlText(bytes))
  })
}

/** UTF-8, or UTF-16 with its mark: what every reader of XML must take. */
export function xmlText(bytes: Buffer): string {
  const mark = bytes.subarray(0, 2).toString('hex')
  if (mark === 'fffe' || mark === 'feff') {
    return new TextDecoder(mark === 'fffe' ? 'utf-16le' : 'utf-16be').decode(bytes)
  }
  if (!isUtf8(bytes)) throw new Problem('invalid-request', 'the body is not UTF-8')
  return bytes.toString('utf8')
}

function expectRoot(root: XmlElement | undefined, name: PropertyName): XmlElement {
  if (root !== undefined && nameOf(root) === name) return root
  throw new Problem('invalid-request', `the body is no ${name.replace(' ', '')}`)
}

function inDav(element: XmlElement, local: string): XmlElement | undefined {
  return childrenOf(element).find((child) => nameOf(child) === `DAV: ${local}`)
}

// -- PROPPATCH --------------------------------------------------------------------------------------

/** One step of a PROPPATCH. */
export interface PropertyUpdate {
  readonly name: PropertyName
  /** The element as it is to be kept, self-contained; undefined when the property is to be removed. */
  readonly xml: string | undefined
  /** Its text. */
  readonly text: string
}

/** The steps of `D:propertyupdate` in the order of the document, in which they are to be taken. */
export function propertyUpdates(root: XmlElement | undefined): PropertyUpdate[] {
  const updates: PropertyUpdate[] = []
  let bytes = 0
  for (const step of childrenOf(expectRoot(root, 'DAV: propertyupdate'))) {
    const isSet = nameOf(step) === 'DAV: set'
    if (!isSet && nameOf(step) !== 'DAV: remove') continue
    for (const prop of childrenOf(step).filter((child) => nameOf(child) === 'DAV: prop')) {
      for (const property of childrenOf(prop)) {
        const xml = isSet ? elementXml(property) : undefined
        bytes += Buffer.byteLength(xml ?? '')
        if (bytes > maxValueBytes) {
          throw new Problem('body-too-large', `the properties take more than ${maxValueBytes} bytes`)
        }
        updates.push({ name: nameOf(property), xml, text: textOf(property) })
      }
    }
  }
  if (updates.length === 0) throw new Problem('invalid-request', 'DAV:propertyupdate names no property')
  return updates
}

// -- LOCK -------------------------------------------------------------------------------------------

export interface LockInfo {
  readonly scope: 'exclusive' | 'shared'
  /** What is in `D:owner`, self-contained; empty when there is none. */
  readonly owner: string
}

/** What lock `D:lockinfo` asks for. */
export function lockInfo(root: XmlElement | undefined): LockInfo {
  const info = expectRoot(root, 'DAV: lockinfo')
  const [scope, type] = ['lockscope', 'locktype'].map((local) => {
    const element = inDav(info, local)
    const [child, second] = element === undefined ? [] : childrenOf(element)
    return child === undefined || second !== undefined ? undefined : nameOf(child)
  })
  if (type !== 'DAV: write' || (scope !== 'DAV: exclusive' && scope !== 'DAV: shared')) {
    throw new Problem('invalid-request', 'DAV:lockinfo must ask for an exclusive or a shared write lock')
  }
  const owner = inDav(info, 'owner')
  const inner = owner === undefined ? '' : innerXml(owner)
  if (Buffer.byteLength(inner) > maxOwnerBytes) {
    throw new Problem('body-too-large', `DAV:owner takes more than ${maxOwnerBytes} bytes`)
  }
  return { scope: scope === 'DAV: shared' ? 'shared' : 'exclusive', owner: inner }
}

/** It is told again with every answer about the lock. */
const maxOwnerBytes = 8 * 1024

// -- REPORT -----------------------------------------------------------------------------------------

export interface SyncRequest {
  /** Empty at first. */
  readonly token: string
  readonly level: string
  /** The most members that the client takes. */
  readonly limit: number | undefined
  readonly names: readonly PropertyName[]
}

/** What `D:sync-collection` asks for; undefined for another report. */
export function syncRequest(root: XmlElement | undefined): SyncRequest | undefined {
  if (root === undefined) throw new Problem('invalid-request', 'REPORT needs a body')
  if (nameOf(root) !== 'DAV: sync-collection') return undefined
  const text = (local: string): string | undefined => {
    const element = inDav(root, local)
    return element === undefined ? undefined : textOf(element).trim()
  }
  const token = text('sync-token')
  if (token === undefined) throw new Problem('invalid-request', 'DAV:sync-collection has no DAV:sync-token')
  const limited = inDav(root, 'limit')
  const results = limited === undefined ? undefined : inDav(limited, 'nresults')
  const limit = results === undefined ? undefined : textOf(results).trim()
  if (limit !== undefined && !/^[1-9][0-9]{0,8}$/.test(limit)) {
    throw new Problem('invalid-request', 'DAV:nresults must be a whole number')
  }
  const prop = inDav(root, 'prop')
  return {
    token,
    // Older clients say it in Depth: RFC 6578, appendix A.
    level: text('sync-level') ?? '1',
    limit: limit === undefined ? undefined : Number(limit),
    names: prop === undefined ? [] : [...new Set(childrenOf(prop).map(nameOf))],
  }
}
