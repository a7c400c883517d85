/** XML that clients send, as a tree: namespace-aware, strict, bounded. And the way back to text. */
import { SaxesParser } from 'saxes'
import { Problem } from '../../protocol/problem.ts'

/** No method of WebDAV needs ten; dead properties may hold documents. */
const maxNesting = 100
/** Every element that binds one knows all that are in scope. */
const maxPrefixes = 64

/**
 * What is in no URI. Parsers that put a character between namespace and name refuse the whole document when a
 * namespace holds it: a property so called would hide all others of its resource from their clients.
 */
const noUri = /[\s<>"{}|\\^`]/

export interface XmlElement {
  /** '' for no namespace. */
  readonly namespace: string
  readonly local: string
  /** The name with its prefix, as it was written. */
  readonly written: string
  readonly attributes: readonly { readonly written: string; readonly value: string }[]
  /** Prefixes in scope, '' the default one. */
  readonly scope: ReadonlyMap<string, string>
  /** `xml:lang` in scope. */
  readonly language: string | undefined
  readonly content: readonly (XmlElement | string)[]
}

type Growing = XmlElement & { readonly content: (XmlElement | string)[] }

/**
 * The root element of a document. Problem `invalid-request` when it is malformed, binds no namespace to a
 * prefix or what is no URI, has a document type declaration, nests deeper than 100, or has more than 64
 * prefixes in scope.
 */
export function parseXml(text: string): XmlElement {
  const parser = new SaxesParser({ xmlns: true })
  const open: Growing[] = []
  let root: Growing | undefined
  const add = (piece: string): void => {
    const content = open.at(-1)?.content
    const before = content?.at(-1)
    if (content === undefined) return
    if (typeof before === 'string') content[content.length - 1] = before + piece
    else content.push(piece)
  }
  parser.on('error', (cause) => {
    throw new Problem('invalid-request', `the body is no XML: ${cause.message}`, { cause })
  })
  parser.on('doctype', () => {
    throw new Problem('invalid-request', 'a document type declaration is not taken')
  })
  parser.on('opentag', ({ uri, local, name, ns, attributes }) => {
    if (open.length >= maxNesting) throw new Problem('invalid-request', 'the elements nest too deep')
    const parent = open.at(-1)
    const declared = Object.entries(ns ?? {})
    if (declared.some(([, uri]) => noUri.test(uri))) {
      throw new Problem('invalid-request', 'the name of a namespace is no URI')
    }
    const scope =
      parent && declared.length === 0 ? parent.scope : new Map([...(parent?.scope ?? []), ...declared])
    if (scope.size > maxPrefixes)
      throw new Problem('invalid-request', 'there are too many namespace prefixes')
    const lang = attributes['xml:lang'] as unknown as { value: string } | undefined
    const element: Growing = {
      namespace: uri,
      local,
      written: name,
      attributes: Object.values(attributes).map(({ name: written, value }) => ({ written, value })),
      scope,
      language: lang?.value ?? parent?.language,
      content: [],
    }
    if (parent === undefined) root = element
    else parent.content.push(element)
    open.push(element)
  })
  parser.on('text', add)
  parser.on('cdata', add)
  parser.on('closetag', () => void open.pop())
  parser.write(text).close()
  return root as XmlElement
}

/** `namespace local`, as properties are called here: PropertyName. */
export function nameOf({ namespace, local }: XmlElement): string {
  return `${namespace} ${local}`
}

/** The elements directly in one, without text. */
export function childrenOf({ content }: XmlElement): XmlElement[] {
  return content.filter((piece) => typeof piece !== 'string')
}

/** The text directly in an element. */
export function textOf({ content }: XmlElement): string {
  return content.filter((piece) => typeof piece === 'string').join('')
}

/** The whole element as XML that means the same wherever it is put: namespaces and language in scope are its own. */
export function elementXml(element: XmlElement): string {
  const own = new Set(element.attributes.map(({ written }) => written))
  const inherited = [...element.scope].flatMap(([prefix, uri]) => {
    const written = prefix === '' ? 'xmlns' : `xmlns:${prefix}`
    return own.has(written) || (prefix === '' && uri === '') ? [] : [{ written, value: uri }]
  })
  const needsDefault = element.scope.get('') === undefined && !own.has('xmlns')
  const language =
    element.language === undefined || own.has('xml:lang')
      ? []
      : [{ written: 'xml:lang', value: element.language }]
  const first = needsDefault ? [{ written: 'xmlns', value: '' }] : []
  return tagXml(element, [...first, ...inherited, ...language, ...element.attributes])
}

/** What is in the element, each inner element self-contained. */
export function innerXml({ content }: XmlElement): string {
  return content.map((piece) => (typeof piece === 'string' ? escapeXml(piece) : elementXml(piece))).join('')
}

function tagXml(element: XmlElement, attributes: XmlElement['attributes']): string {
  const start = `${element.written}${attributes.map(({ written, value }) => ` ${written}="${escapeAttribute(value)}"`).join('')}`
  if (element.content.length === 0) return `<${start}/>`
  const inner = element.content.map((piece) =>
    typeof piece === 'string' ? escapeXml(piece) : tagXml(piece, piece.attributes),
  )
  return `<${start}>${inner.join('')}</${element.written}>`
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

/** The same for an attribute's value, where white space would be normalized. */
function escapeAttribute(value: string): string {
  return escapeXml(value).replace(/[\n\t]/g, (character) => `&#${character.charCodeAt(0)};`)
}
