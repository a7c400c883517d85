/**
 * The answer to PROPFIND, as it comes in: RFC 4918, section 14.16. Strict and namespace-aware (saxes), no DTD,
 * depth and text bounded; however many members there are, one at a time is in memory. What a server says
 * about anything but direct members of the collection that was asked for is passed over.
 */
import { SaxesParser } from 'saxes'
import { Problem } from '../../protocol/problem.ts'
import { folded } from './webdav-folder.ts'

/** One member of a collection. */
export interface DavMember {
  /** The name's bytes; empty for the collection itself. */
  readonly name: Buffer
  readonly isCollection: boolean
  /** Of a file, where the server tells it. */
  readonly size: number | undefined
  /** Milliseconds since 1970, where the server tells it. */
  readonly modifiedMs: number | undefined
}

const dav = 'DAV:'
const maxNesting = 64
/** Of one element: a name has at most a few hundred bytes, a path a few thousand. */
const maxTextBytes = 64 * 1024
/** What we read; other properties are passed over, whatever is in them. */
const texts = ['href', 'status', 'getcontentlength', 'getlastmodified']

/** A `response` element while it is read. */
interface Growing {
  href: string
  /** Some properties were to be had. */
  isThere: boolean
  isCollection: boolean
  size: string
  modified: string
  /** The propstat at hand: its properties hold only where its status is 200. */
  found: { isCollection: boolean; size: string; modified: string }
  status: string
}

const nothingFound = () => ({ isCollection: false, size: '', modified: '' })

/**
 * The members that `body` tells of below `collection`, a percent-encoded path that ends in a slash, the
 * collection itself among them. Problem `protocol-violation` for what is no multistatus document.
 */
export async function* parseListing(
  body: AsyncIterable<Buffer>,
  collection: string,
): AsyncGenerator<DavMember, void, undefined> {
  const parser = new ListingParser()
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const segments = segmentsOf(collection) as Buffer[]
  for await (const piece of body) {
    parser.write(decode(() => decoder.decode(piece, { stream: true })))
    for (const response of parser.take()) yield* memberOf(response, segments)
  }
  parser.write(decode(() => decoder.decode()))
  parser.close()
  for (const response of parser.take()) yield* memberOf(response, segments)
}

function decode(work: () => string): string {
  try {
    return work()
  } catch (cause) {
    throw violation('it is not UTF-8', cause)
  }
}

function violation(what: string, cause?: unknown): Problem {
  return new Problem('protocol-violation', `the server's listing makes no sense: ${what}`, { cause })
}

class ListingParser {
  readonly #parser = new SaxesParser({ xmlns: true })
  readonly #path: string[] = []
  #text = ''
  #response: Growing | undefined
  #done: Growing[] = []
  #rootSeen = false

  constructor() {
    this.#parser.on('error', (error) => {
      throw violation(error.message, error)
    })
    this.#parser.on('doctype', () => {
      throw violation('it has a document type declaration')
    })
    this.#parser.on('opentag', ({ uri, local }) => this.#open(uri === dav ? local : ''))
    this.#parser.on('text', (text) => this.#add(text))
    this.#parser.on('cdata', (text) => this.#add(text))
    this.#parser.on('closetag', () => this.#close())
  }

  write(text: string): void {
    this.#parser.write(text)
  }

  close(): void {
    this.#parser.close()
    if (!this.#rootSeen) throw violation('it is empty')
  }

  /** The responses that are complete by now. */
  take(): Growing[] {
    return this.#done.splice(0)
  }

  /** `name` is empty for elements that are none of DAV's. */
  #open(name: string): void {
    if (this.#path.length === 0) {
      if (name !== 'multistatus') throw violation('it is no multistatus document')
      this.#rootSeen = true
    }
    this.#path.push(name)
    if (this.#path.length > maxNesting) throw violation('its elements nest too deep')
    this.#text = ''
    const depth = this.#path.length
    if (depth === 2 && name === 'response') {
      this.#response = {
        href: '',
        isThere: false,
        isCollection: false,
        size: '',
        modified: '',
        status: '',
        found: nothingFound(),
      }
    } else if (this.#response !== undefined && depth === 3 && name === 'propstat') {
      this.#response.found = nothingFound()
      this.#response.status = ''
    } else if (this.#response !== undefined && this.#inProperty('resourcetype') && name === 'collection') {
      this.#response.found.isCollection = true
    }
  }

  /** Whether the element at hand stands directly in this property. */
  #inProperty(property: string): boolean {
    return this.#path.length === 6 && this.#path[4] === property && this.#path[3] === 'prop'
  }

  #add(text: string): void {
    if (!texts.includes(this.#path.at(-1) ?? '')) return
    this.#text += text
    if (this.#text.length > maxTextBytes) throw violation('one of its texts is too long')
  }

  #close(): void {
    const depth = this.#path.length
    const name = this.#path.pop()
    const response = this.#response
    const text = this.#text.trim()
    this.#text = ''
    if (response === undefined) return
    if (depth === 2) {
      this.#done.push(response)
      this.#response = undefined
    } else if (depth === 3 && name === 'href') {
      response.href = text
    } else if (depth === 4 && name === 'status') {
      response.status = text
    } else if (depth === 5 && name === 'getcontentlength') {
      response.found.size = text
    } else if (depth === 5 && name === 'getlastmodified') {
      response.found.modified = text
    } else if (depth === 3 && name === 'propstat' && / 200\b/.test(response.status)) {
      const { isCollection, size, modified } = response.found
      response.isThere = true
      response.isCollection ||= isCollection
      response.size ||= size
      response.modified ||= modified
    }
  }
}

/** What a response tells of a direct member, if it does. */
function* memberOf(response: Growing, collection: readonly Buffer[]): Generator<DavMember> {
  const segments = response.isThere ? segmentsOf(response.href) : undefined
  if (segments === undefined || segments.length > collection.length + 1) return
  if (!collection.every((segment, index) => isCalled(segments[index], segment))) return
  const name = segments[collection.length] ?? Buffer.alloc(0)
  const modifiedMs = Date.parse(response.modified)
  yield {
    name,
    isCollection: response.isCollection,
    size: /^[0-9]{1,15}$/.test(response.size) ? Number(response.size) : undefined,
    modifiedMs: Number.isNaN(modifiedMs) ? undefined : modifiedMs,
  }
}

/** What was asked for may be answered in the form that the server keeps names in. */
function isCalled(found: Buffer | undefined, asked: Buffer): boolean {
  return found !== undefined && (found.equals(asked) || folded(found) === folded(asked))
}

/** The names along a path or URL, as bytes; undefined when it has dots for names, or does not decode. */
function segmentsOf(href: string): Buffer[] | undefined {
  const path = href.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/]*/i, '').replace(/[?#].*$/s, '')
  const segments: Buffer[] = []
  for (const text of path.split('/')) {
    if (text === '') continue
    const bytes = percentDecoded(text)
    if (bytes === undefined || bytes.includes(0x2f) || bytes.includes(0)) return undefined
    if (bytes.length <= 2 && bytes.every((byte) => byte === 0x2e)) return undefined
    segments.push(bytes)
  }
  return segments
}

function percentDecoded(text: string): Buffer | undefined {
  // Some servers leave letters beyond ASCII as they are.
  const bytes = Buffer.from(text, 'utf8').toString('latin1')
  if (/%(?![0-9a-fA-F]{2})/.test(bytes)) return undefined
  const decoded = bytes.replace(/%(..)/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 16)),
  )
  return Buffer.from(decoded, 'latin1')
}
