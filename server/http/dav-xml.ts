/** The XML of PROPFIND: RFC 4918, sections 9.1 and 14. */
import { SaxesParser } from 'saxes'
import { Problem } from '../../protocol/problem.ts'

export const ownNamespace = 'urn:chunkdav:'

/** Property names are `namespace localname`, with a space between; a namespace holds none. */
export type PropertyName = string

export interface PropfindBody {
  /** `prop` names what it wants; `allprop` wants values, `propname` only names. */
  readonly want: 'prop' | 'allprop' | 'propname'
  readonly names: readonly PropertyName[]
}

/** One response of a multistatus. Values are text, but that of resourcetype, which is XML. */
export interface DavResource {
  /** Percent-encoded path. */
  readonly href: string
  readonly properties: ReadonlyMap<PropertyName, string>
}

/** What a PROPFIND body asks for; an empty one asks for everything. Problem `invalid-request`. */
export function parsePropfind(xml: string): PropfindBody {
  if (xml.trim() === '') return { want: 'allprop', names: [] }
  const parser = new SaxesParser({ xmlns: true })
  const names: PropertyName[] = []
  const open: string[] = []
  let want: PropfindBody['want'] | undefined
  parser.on('error', (cause) => {
    throw new Problem('invalid-request', `the body is no XML: ${cause.message}`, { cause })
  })
  parser.on('doctype', () => {
    throw new Problem('invalid-request', 'a document type declaration is not taken')
  })
  parser.on('opentag', ({ uri, local }) => {
    const name = `${uri} ${local}`
    if (open.length === 0 && name !== 'DAV: propfind') {
      throw new Problem('invalid-request', 'the body is no DAV:propfind')
    }
    if (open.length === 1 && uri === 'DAV:' && isWanted(local)) {
      if (want !== undefined) throw new Problem('invalid-request', 'DAV:propfind asks for two things at once')
      want = local
    }
    if (open.length === 2 && open[1] === 'DAV: prop') names.push(name)
    open.push(name)
  })
  parser.on('closetag', () => void open.pop())
  parser.write(xml).close()
  if (want === undefined) throw new Problem('invalid-request', 'DAV:propfind asks for nothing')
  return { want, names }
}

function isWanted(local: string): local is PropfindBody['want'] {
  return local === 'prop' || local === 'allprop' || local === 'propname'
}

/** Text as XML character data. What XML cannot hold at all becomes U+FFFD. */
export function escapeXml(text: string): string {
  return (
    text
      .toWellFormed()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what XML 1.0 excludes
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd')
      .replace(/[&<>"\r]/g, (character) => `&#${character.charCodeAt(0)};`)
  )
}

/** One name of a path, percent-encoded: everything but RFC 3986's unreserved characters. */
export function encodeSegment(name: Buffer): string {
  let text = ''
  for (const byte of name) {
    const character = String.fromCharCode(byte)
    text += /[A-Za-z0-9._~-]/.test(character)
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return text
}

/** A collection with nothing known but its name. */
export function collection(href: string, name: Buffer): DavResource {
  return {
    href,
    properties: new Map([
      ['DAV: resourcetype', '<D:collection/>'],
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

/** One `D:response`. */
export function responseXml({ href, properties }: DavResource, { want, names }: PropfindBody): string {
  const known = want === 'prop' ? names.filter((name) => properties.has(name)) : [...properties.keys()]
  const unknown = want === 'prop' ? names.filter((name) => !properties.has(name)) : []
  const found = known.map((name) =>
    element(name, want === 'propname' ? '' : (properties.get(name) as string)),
  )
  const absent = unknown.map((name) => element(name, ''))
  const stats = [
    ...(found.length > 0 || absent.length === 0 ? [propstat(found, '200 OK')] : []),
    ...(absent.length > 0 ? [propstat(absent, '404 Not Found')] : []),
  ]
  return `<D:response><D:href>${escapeXml(href)}</D:href>${stats.join('')}</D:response>\n`
}

function propstat(elements: readonly string[], status: string): string {
  return `<D:propstat><D:prop>${elements.join('')}</D:prop><D:status>HTTP/1.1 ${status}</D:status></D:propstat>`
}

function element(name: PropertyName, value: string): string {
  const at = name.indexOf(' ')
  const [namespace, local] = [name.slice(0, at), name.slice(at + 1)]
  const content = name === 'DAV: resourcetype' ? value : escapeXml(value)
  if (namespace === 'DAV:') return `<D:${local}>${content}</D:${local}>`
  if (namespace === '') return `<${local} xmlns="">${content}</${local}>`
  return `<x:${local} xmlns:x="${escapeXml(namespace)}">${content}</x:${local}>`
}
