/**
 * RFC 4918 as methods, with what servers were found to do differently. Paths are percent-encoded and
 * relative to the location's folder; those of collections end in a slash (nginx demands it).
 *
 * Requests without a streamed body are made again when the connection breaks (http.ts): a method that was
 * carried out although its answer got lost is then met as done already, which each of them allows for.
 */
import { isProblem, Problem, type ProblemCode } from '../../protocol/problem.ts'
import {
  type IncomingAnswer,
  type OutgoingRequest,
  type RefusedAnswer,
  Transport,
  type TransportCounters,
  type TransportOptions,
} from '../http.ts'
import { type DavMember, parseListing } from './webdav-listing.ts'
import type { WebDavLocation } from './webdav-url.ts'

/** A server copies a whole tree, or moves what it has buffered, before it answers. */
const longAnswerMs = 6 * 3_600_000

/** Of one folder: what memory holds. */
const maxMembers = 4_000_000
/** Of what was done at once. 207 tells of parts that were not. */
const doneStatuses = [200, 201, 204, 207]
const listedProperties = Buffer.from(
  '<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>',
)

export interface DavCallOptions {
  readonly signal?: AbortSignal | undefined
}

export interface PutOptions extends DavCallOptions {
  /** When the file was changed, for a server that keeps that (ownCloud's header, which others have taken over). */
  readonly mtimeNs?: string | undefined
}

export interface ReadOptions extends DavCallOptions {
  readonly maxBytes: number
  readonly stretch: { readonly first: number; readonly bytes: number } | undefined
}

/** `exists`: something stands at the destination, and was not to be replaced. */
export type CopyOutcome = 'done' | 'exists'

export class WebDavClient {
  readonly location: WebDavLocation
  readonly #transport: Transport

  /** Opens no connection yet. */
  constructor(location: WebDavLocation, options: TransportOptions = {}) {
    this.location = location
    const headers = { ...location.headers, ...options.headers }
    const refusal = (answer: RefusedAnswer): Problem => davProblem(answer, location)
    this.#transport = new Transport(location.origin, { ...options, headers, refusal, kind: 'webdav' })
  }

  get counters(): Readonly<TransportCounters> {
    return this.#transport.counters
  }

  /** The methods that the server says it has for a resource; empty when it does not say. */
  async methods(path: string, options: DavCallOptions = {}): Promise<readonly string[]> {
    const { headers } = await this.#request({ method: 'OPTIONS', path }, options)
    return String(headers.allow ?? '')
      .split(',')
      .map((method) => method.trim().toUpperCase())
      .filter((method) => method !== '')
  }

  /** What stands directly in a collection; undefined when there is no such collection. */
  async list(path: string, options: DavCallOptions = {}): Promise<DavMember[] | undefined> {
    const members: DavMember[] = []
    try {
      for await (const member of this.#propfind(path, '1', options)) {
        if (member.name.length > 0) members.push(member)
        else if (!member.isCollection) return undefined
        if (members.length > maxMembers) throw new Problem('protocol-violation', 'a listing has no end')
      }
    } catch (error) {
      if (isProblem(error, 'not-found')) return undefined
      throw error
    }
    return members
  }

  /** What stands at `path`. */
  async look(path: string, options: DavCallOptions = {}): Promise<DavMember | undefined> {
    try {
      for await (const member of this.#propfind(path, '0', options))
        if (member.name.length === 0) return member
    } catch (error) {
      if (!isProblem(error, 'not-found')) throw error
    }
    return undefined
  }

  async kindAt(path: string, options: DavCallOptions = {}): Promise<'collection' | 'file' | undefined> {
    const found = await this.look(path, options)
    return found && (found.isCollection ? 'collection' : 'file')
  }

  async *#propfind(path: string, depth: '0' | '1', options: DavCallOptions): AsyncIterable<DavMember> {
    const headers = { depth, 'content-type': 'application/xml; charset=utf-8', accept: 'application/xml' }
    const request = { method: 'PROPFIND', path: this.#pathOf(path), headers, body: [listedProperties] }
    const { status, body } = await this.#transport.stream({ ...request, ...options })
    if (status !== 207) {
      await discard(body)
      throw new Problem('protocol-violation', noDavText(this.location, status))
    }
    yield* parseListing(body, this.#pathOf(path))
  }

  /** Makes a collection; false when it is there already (or the server does not tell: rclone's never does). */
  async makeCollection(path: string, options: DavCallOptions = {}): Promise<boolean> {
    try {
      await this.#request({ method: 'MKCOL', path }, options)
      return true
    } catch (error) {
      const status = isProblem(error) ? error.extensions.status : undefined
      if (status === 405) return false
      // Made by two clients at the same moment: Apache then says 403 to one of them, rclone 423.
      if ((status !== 403 && status !== 423) || (await this.kindAt(path, options)) !== 'collection')
        throw error
      return false
    }
  }

  /** Puts a file from bytes that must not change until this settles. */
  async put(path: string, body: readonly Uint8Array[], options: PutOptions = {}): Promise<void> {
    const { mtimeNs, ...others } = options
    const headers = mtimeHeader(mtimeNs)
    await this.#request({ method: 'PUT', path, headers, body, answerMs: longAnswerMs }, others)
  }

  /** Puts a file from a stream, `bytes` long when that is known. Not made again when the connection breaks. */
  async putStream(
    path: string,
    streamed: OutgoingRequest['streamed'] & {},
    options: PutOptions = {},
  ): Promise<void> {
    const { mtimeNs, signal } = options
    const placed = { method: 'PUT', path: this.#pathOf(path), headers: mtimeHeader(mtimeNs) }
    const request = { ...placed, streamed, answerMs: longAnswerMs, signal }
    this.#done(request, await this.#transport.send(request))
  }

  /**
   * Copies a file, or a collection with all that is in it. Rejects when any of it could not be copied; then
   * some of it may be there.
   */
  async copy(
    from: string,
    to: string,
    { overwrite, signal }: DavCallOptions & { overwrite: boolean },
  ): Promise<CopyOutcome> {
    const headers = { ...this.#destination(to, overwrite), depth: 'infinity' }
    return this.#transfer({ method: 'COPY', path: from, headers }, { signal })
  }

  /** Renames a collection; never replaces anything. */
  async move(from: string, to: string, options: DavCallOptions = {}): Promise<CopyOutcome> {
    const headers = { ...this.#destination(to, false), depth: 'infinity' }
    return this.#transfer({ method: 'MOVE', path: from, headers }, options)
  }

  #destination(path: string, overwrite: boolean): Record<string, string> {
    // Absolute: Apache takes no other.
    const destination = `${this.location.origin}${this.#pathOf(path)}`
    return { destination, overwrite: overwrite ? 'T' : 'F' }
  }

  async #transfer(request: OutgoingRequest, options: DavCallOptions): Promise<CopyOutcome> {
    try {
      const { status } = await this.#request({ ...request, answerMs: longAnswerMs }, options)
      // RFC 4918, section 9.8.5: some of what is below could not be copied.
      if (status !== 207) return 'done'
      throw new Problem('failed-dependency', `the server did only part of a ${request.method}`, {
        extensions: { status },
      })
    } catch (error) {
      if (isProblem(error, 'precondition-failed')) return 'exists'
      throw error
    }
  }

  /** Deletes a file or a collection; false when it is not there. */
  async remove(path: string, options: DavCallOptions = {}): Promise<boolean> {
    try {
      const { status } = await this.#request({ method: 'DELETE', path, answerMs: longAnswerMs }, options)
      if (status !== 207) return true
      throw new Problem('failed-dependency', 'the server deleted only part of a folder', {
        extensions: { status },
      })
    } catch (error) {
      if (isProblem(error, 'not-found')) return false
      throw error
    }
  }

  /** A file's bytes, or those from `first` to `last`; a server may answer with all of them all the same (200). */
  get(
    path: string,
    { range, signal }: DavCallOptions & { range?: { first: number; last: number } } = {},
  ): Promise<IncomingAnswer<AsyncIterable<Buffer>>> {
    // Compressed on the way, a range would be one of other bytes.
    const headers: Record<string, string> = { 'accept-encoding': 'identity' }
    if (range !== undefined) headers.range = `bytes=${range.first}-${range.last}`
    return this.#content({ method: 'GET', path: this.#pathOf(path), headers, signal })
  }

  async #content(request: OutgoingRequest): Promise<IncomingAnswer<AsyncIterable<Buffer>>> {
    const answer = await this.#transport.stream(request)
    if (answer.status === 200 || answer.status === 206) return answer
    await discard(answer.body)
    return this.#done(request, answer)
  }

  /**
   * A file's content, read again when the connection breaks: all of it, but not much more than `maxBytes`; or
   * a stretch, also from a server that knows no ranges.
   */
  read(path: string, options: ReadOptions): Promise<Buffer> {
    const { maxBytes, stretch, signal } = options
    const range = stretch && { first: stretch.first, last: stretch.first + stretch.bytes - 1 }
    return this.retried(signal, async () => {
      const { status, body } = await this.get(path, { ...(range && { range }), signal })
      const skipped = stretch === undefined || status === 206 ? 0 : stretch.first
      const pieces: Buffer[] = []
      let at = 0
      for await (const piece of body) {
        pieces.push(piece.subarray(Math.max(0, skipped - at)))
        at += piece.length
        if (at > skipped + maxBytes) break
      }
      const bytes = Buffer.concat(pieces)
      return stretch === undefined ? bytes : bytes.subarray(0, stretch.bytes)
    })
  }

  /** Runs `attempt` until it succeeds, or fails with something that trying again cannot help. */
  retried<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    return this.#transport.retried(signal, attempt)
  }

  /** Ends connections and whatever is under way. Idempotent. */
  close(): Promise<void> {
    return this.#transport.close()
  }

  #pathOf(path: string): string {
    return this.location.folder + path
  }

  async #request(request: OutgoingRequest, options: DavCallOptions): Promise<IncomingAnswer<Buffer>> {
    const placed = { ...request, path: this.#pathOf(request.path), ...options }
    return this.#done(placed, await this.#transport.request(placed))
  }

  /** `answer`, when it says that the work was done, or some of it: a redirection or a promise is no such thing. */
  #done<A extends IncomingAnswer<unknown>>({ method }: OutgoingRequest, answer: A): A {
    const { status, headers } = answer
    if (doneStatuses.includes(status)) return answer
    const elsewhere = headers.location === undefined ? '' : ` and points to ${headers.location}; use that URL`
    const text = `${this.location.shown} answers ${method} with status ${status}${elsewhere}`
    throw new Problem('protocol-violation', text, { extensions: { status } })
  }
}

function mtimeHeader(mtimeNs: string | undefined): Record<string, string> {
  // What is older than 1970 is not worth a refusal.
  if (mtimeNs === undefined || BigInt(mtimeNs) <= 0n) return {}
  return { 'x-oc-mtime': String(BigInt(mtimeNs) / 1_000_000_000n) }
}

async function discard(body: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of body) break
}

const codes: Readonly<Record<number, ProblemCode>> = {
  401: 'forbidden',
  403: 'forbidden',
  404: 'not-found',
  405: 'method-not-allowed',
  409: 'conflict',
  412: 'precondition-failed',
  413: 'body-too-large',
  415: 'unsupported-media-type',
  423: 'locked',
  424: 'failed-dependency',
  429: 'unavailable',
  501: 'method-not-allowed',
  502: 'unavailable',
  503: 'unavailable',
  504: 'unavailable',
  507: 'insufficient-storage',
}

/** Methods for people; who runs the server looks for the method. */
const deeds: Readonly<Record<string, string>> = {
  COPY: 'copying (COPY)',
  DELETE: 'deleting (DELETE)',
  GET: 'reading (GET)',
  MKCOL: 'making folders (MKCOL)',
  MOVE: 'renaming (MOVE)',
  OPTIONS: 'saying what it can do (OPTIONS)',
  PROPFIND: 'listing folders (PROPFIND)',
  PUT: 'storing files (PUT)',
}

/** What a server means by a status, and what to do about it. The status itself is in the extensions. */
function davProblem({ method, status, headers }: RefusedAnswer, location: WebDavLocation): Problem {
  const code = codes[status] ?? (status < 500 ? 'invalid-request' : 'internal-error')
  const extensions = { status }
  if (status === 401) return new Problem(code, credentialsText(headers, location), { extensions })
  if (method === 'PROPFIND' && [400, 405, 501].includes(status)) {
    return new Problem('protocol-violation', noDavText(location, status), { extensions })
  }
  const deed = deeds[method] ?? method
  const reasons: Record<number, string> = {
    403: `does not allow ${deed}; check what the user may do there`,
    404: `failed at ${deed}: it has nothing there`,
    405: `does not allow ${deed}`,
    409: `failed at ${deed}: it says that a folder above is not there`,
    411: 'takes no file whose length is not known before it is sent',
    413: 'takes no file of this size',
    414: 'takes no path of this length',
    423: `does not allow ${deed}: another program has locked it; wait until that is done, or take the lock away`,
    501: `does not support ${deed}`,
    507: 'has no space left; make room there and run the command again',
  }
  const text = reasons[status] ?? `failed at ${deed} (status ${status}); its log may tell more`
  return new Problem(code, `${location.shown} ${text}`, { extensions })
}

function credentialsText(headers: RefusedAnswer['headers'], { shown, headers: own }: WebDavLocation): string {
  const schemes = String(headers['www-authenticate'] ?? 'Basic')
  if (!/\bbasic\b/i.test(schemes)) {
    return `${shown} asks for a login of another kind than Basic (${schemes.split(' ')[0]}), which is all that there is here`
  }
  const example = shown.replace('://', '://USER@')
  return own.authorization === undefined
    ? `${shown} asks for a user and a password; name the user in the URL, ${example}, and put the password into CHUNKDAV_PASSWORD`
    : `${shown} does not take this user and password; check the URL and CHUNKDAV_PASSWORD`
}

function noDavText({ shown }: WebDavLocation, status: number): string {
  return `${shown} answers, but is no WebDAV server (status ${status}); check the URL`
}
