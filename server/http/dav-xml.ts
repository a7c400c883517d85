/** The XML of PROPFIND: RFC 4918, sections 9.1 and 14. The prefix of DAV: is always `D`: some clients match it literally. */
import { Problem } from '../../protocol/problem.ts'
import { childrenOf, escapeXml, nameOf, parseXml } from './xml.ts'

export const ownNamespace = 'urn:chunkdav:'

/** Property names are `namespace localname`, with a space between; a namespace holds none. */
export type PropertyName = string

/** Text; or the XML in the element, where `D` is bound to DAV:; or the whole element, which binds its prefixes itself. */
export type PropertyValue = string | { readonly xml: string } | { readonly element: string }

export interface PropfindBody {
  /** `prop` names what it wants; `allprop` wants values, `propname` only names. */
  readonly want: 'prop' | 'allprop' | 'propname'
  /** Of `prop`; or, besides all, of the `include` of `allprop`. Each once. */
  readonly names: readonly PropertyName[]
}

/** One response of a multistatus. */
export interface DavResource {
  /** Percent-encoded path. */
  readonly href: string
  readonly properties: ReadonlyMap<PropertyName, PropertyValue>
}

/** What a PROPFIND body asks for; an empty one asks for everything. Problem `invalid-request`. */
export function parsePropfind(xml: string): PropfindBody {
  if (xml.trim() === '') return { want: 'allprop', names: [] }
  const root = parseXml(xml)
  if (nameOf(root) !== 'DAV: propfind') throw new Problem('invalid-request', 'the body is no DAV:propfind')
  // RFC 4918, section 17: what is not known is passed over.
  const known = childrenOf(root).filter(({ namespace }) => namespace === 'DAV:')
  const [wanted, second] = known.filter(({ local }) => isWanted(local))
  if (wanted === undefined) throw new Problem('invalid-request', 'DAV:propfind asks for nothing')
  if (second !== undefined) throw new Problem('invalid-request', 'DAV:propfind asks for two things at once')
  const want = wanted.local as PropfindBody['want']
  const include = want === 'allprop' ? known.filter(({ local }) => local === 'include') : []
  const lists = want === 'prop' ? [wanted] : include
  return { want, names: [...new Set(lists.flatMap((list) => childrenOf(list).map(nameOf)))] }
}

function isWanted(local: string): local is PropfindBody['want'] {
  return local === 'prop' || local === 'allprop' || local === 'propname'
}

/** A collection with nothing known but its name. */
export function collection(href: string, name: Buffer): DavResource {
  return {
    href,
    properties: new Map<PropertyName, PropertyValue>([
      ['DAV: resourcetype', { xml: '<D:collection/>' }],
      ['DAV: displayname', name.toString('utf8')],
    ]),
  }
}

export const multistatusStart = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
export const multistatusEnd = '</D:multistatus>\n'

/** The whole document, for lists that are short. */
export function multistatus(resources: readonly DavResource[], asked: PropfindBody): string {
  return (
    multistatusStart + resources.map((resource) => responseXml(resource, asked)).join('') + multistatusEnd
  )
}

/** One `D:response`: what there is first, then what there is not. */
export function responseXml({ href, properties }: DavResource, { want, names }: PropfindBody): string {
  const found: string[] = []
  const absent: string[] = []
  if (want !== 'prop') {
    for (const [name, value] of properties) found.push(propertyXml(name, want === 'propname' ? '' : value))
  }
  for (const name of names) {
    const value = properties.get(name)
    if (value === undefined) absent.push(propertyXml(name, ''))
    else if (want === 'prop') found.push(propertyXml(name, value))
  }
  const stats = [
    ...(found.length > 0 || absent.length === 0 ? [propstat(found, '200 OK')] : []),
    ...(absent.length > 0 ? [propstat(absent, '404 Not Found')] : []),
  ]
  return `<D:response><D:href>${escapeXml(href)}</D:href>${stats.join('')}</D:response>\n`
}

/** Properties that have one status, each from `propertyXml`; with a `D:error` where there is one. */
export function propstat(elements: readonly string[], status: string, error = ''): string {
  return `<D:propstat><D:prop>${elements.join('')}</D:prop><D:status>HTTP/1.1 ${status}</D:status>${error}</D:propstat>`
}

/** A property's element. */
export function propertyXml(name: PropertyName, value: PropertyValue): string {
  if (typeof value === 'object' && 'element' in value) return value.element
  const content = typeof value === 'string' ? escapeXml(value) : value.xml
  // A local name holds no space; what clients call a namespace may.
  const at = name.lastIndexOf(' ')
  const [namespace, local] = [name.slice(0, at), name.slice(at + 1)]
  const [tag, binding] =
    namespace === 'DAV:'
      ? [`D:${local}`, '']
      : namespace === ''
        ? [local, ' xmlns=""']
        : [`x:${local}`, ` xmlns:x="${escapeXml(namespace)}"`]
  return content === '' ? `<${tag}${binding}/>` : `<${tag}${binding}>${content}</${tag}>`
}
