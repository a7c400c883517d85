/**
 * Holds answers against openapi.yaml, so that the receiver and its contract cannot drift apart.
 *
 *     const observer = observe(server)          // before the first request
 *     afterEach(() => observer.assertClean())   // throws when an answer broke the contract
 *
 * `observe` sees what leaves the server, whoever asked. `checkResponse` judges a single answer.
 * Beside what the file lists, the rules of its introduction hold: every GET answers HEAD too; a path
 * that is not listed is answered 404 `not-found`, or 400 when its id or name is malformed; a method that
 * is not listed is answered 405 with `Allow`, or 403 where the resource is read-only.
 */
import { readFileSync } from 'node:fs'
import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { parse } from 'yaml'

export type Json = { readonly [key: string]: unknown }

/** An answer, and the request line that it answers. `body` is undefined when it was not recorded whole. */
export interface Exchange {
  readonly method: string
  /** The request target; a query is ignored. */
  readonly path: string
  readonly status: number
  /** Names in any case. */
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Buffer | string | undefined
}

/** openapi.yaml as it stands in the file. */
export const contract = parse(readFileSync(new URL('../../openapi.yaml', import.meta.url), 'utf8')) as Json

const ajv = new Ajv2020({ strict: false, allErrors: false })
ajv.addSchema({ $id: 'contract', ...contract })
const validators = new Map<string, ValidateFunction>()

/** A validator of the schema at a JSON pointer of the contract, such as `/components/schemas/Part`. */
export function validatorAt(pointer: string): ValidateFunction {
  let validate = validators.get(pointer)
  if (validate === undefined) {
    validate = ajv.compile({ $ref: `contract#${pointer}` })
    validators.set(pointer, validate)
  }
  return validate
}

// -- finding the operation --------------------------------------------------------------------------

interface PathTemplate {
  readonly template: string
  readonly pattern: RegExp
  /** Literal segments count: the more, the better the match. */
  readonly literals: number
}

const fixedMethods = ['get', 'head', 'put', 'post', 'patch', 'delete', 'options', 'trace', 'query']

function escapePointer(text: string): string {
  return encodeURIComponent(text.replaceAll('~', '~0').replaceAll('/', '~1'))
}

/** Follows `$ref` until there is none; returns the value and its pointer. */
function resolve(pointer: string): { value: Json; pointer: string } {
  let value: unknown = contract
  for (const token of pointer.split('/').slice(1)) {
    const key = decodeURIComponent(token).replaceAll('~1', '/').replaceAll('~0', '~')
    value = (value as Json | undefined)?.[key]
  }
  const reference = (value as Json | undefined)?.$ref
  if (typeof reference === 'string') return resolve(reference.slice(1))
  if (typeof value !== 'object' || value === null) throw new TypeError(`openapi.yaml has no ${pointer}`)
  return { value: value as Json, pointer }
}

/**
 * `{path}` of the contract spans segments (`x-segments: many`) and may be absent with its slash; every other
 * parameter is one segment. A slash at the end may be absent where `x-final-slash` says so.
 */
function templateOf(template: string): PathTemplate {
  const segments = template.split('/').map((segment, index) => {
    if (segment === '{path}') return '(/.*)?'
    if (segment === '' && index > 1 && isOptionalSlash(template)) return '/?'
    const text = segment.startsWith('{') ? '[^/]+' : segment.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    return index === 0 ? text : `/${text}`
  })
  const literals = template.split('/').filter((segment) => segment !== '' && !segment.startsWith('{')).length
  return { template, pattern: new RegExp(`^${segments.join('')}$`, 's'), literals }
}

function isOptionalSlash(template: string): boolean {
  return ((contract.paths as Json)[template] as Json)['x-final-slash'] === 'optional'
}

const templates = Object.keys(contract.paths as Json)
  .map(templateOf)
  .sort((a, b) => b.literals - a.literals || a.template.length - b.template.length)

/** The path templates and methods of the contract: what tests can count coverage by. */
export function listOperations(): { template: string; method: string; operationId: string }[] {
  return templates.flatMap(({ template }) => {
    const item = (contract.paths as Json)[template] as Json
    const fixed = fixedMethods.filter((method) => item[method] !== undefined)
    const additional = Object.keys((item.additionalOperations as Json | undefined) ?? {})
    return [...fixed, ...additional].map((method) => ({
      template,
      method: method.toUpperCase(),
      operationId: String(
        resolve(operationPointer(template, method.toUpperCase()) as string).value.operationId,
      ),
    }))
  })
}

/** The statuses that an operation of `listOperations` documents. */
export function documentedStatuses(template: string, method: string): number[] {
  return Object.keys(resolve(operationPointer(template, method) as string).value.responses as Json).map(
    Number,
  )
}

/** What changes something: RFC 9110, 4918 and 5789. */
export const writeMethods: ReadonlySet<string> = new Set(
  'PUT POST PATCH DELETE MKCOL COPY MOVE PROPPATCH LOCK UNLOCK'.split(' '),
)

function isReadOnly(template: string): boolean {
  return ((contract.paths as Json)[template] as Json)['x-read-only'] === true
}

function findTemplate(path: string): string | undefined {
  const plain = path.replace(/[?#].*$/s, '')
  return templates.find(({ pattern }) => pattern.test(plain))?.template
}

function operationPointer(template: string, method: string): string | undefined {
  const item = (contract.paths as Json)[template] as Json
  const base = `/paths/${escapePointer(template)}`
  const lower = method.toLowerCase()
  if (fixedMethods.includes(lower) && item[lower] !== undefined) return `${base}/${lower}`
  if ((item.additionalOperations as Json | undefined)?.[method] !== undefined) {
    return `${base}/additionalOperations/${method}`
  }
  return method === 'HEAD' && item.get !== undefined ? `${base}/get` : undefined
}

// -- judging an answer ------------------------------------------------------------------------------

function mediaTypeOf(headers: ReadonlyMap<string, string>): string | undefined {
  return headers.get('content-type')?.split(';')[0]?.trim().toLowerCase()
}

function lowerCased(headers: Readonly<Record<string, unknown>>): Map<string, string> {
  const pairs = Object.entries(headers).filter(([, value]) => value !== undefined)
  return new Map(pairs.map(([name, value]) => [name.toLowerCase(), String(value)]))
}

/** Only an HTTP-level answer outside every operation: it must be a problem document of these statuses. */
function undocumentedFaults(exchange: Exchange, statuses: readonly number[], what: string): string[] {
  const pointers: Record<number, string> = {
    400: '/components/responses/BadRequest',
    401: '/components/responses/Unauthenticated',
    403: '/components/responses/DavForbidden',
    404: '/components/responses/NotFound',
    405: '/components/responses/MethodNotAllowed',
    417: '/components/responses/ExpectationFailed',
    429: '/components/responses/TooManyRequests',
    500: '/components/responses/InternalError',
    503: '/components/responses/Unavailable',
  }
  const pointer = pointers[exchange.status]
  if (pointer === undefined || ![...statuses, 401, 429, 500, 503].includes(exchange.status)) {
    return [`${what}, so the answer must be ${statuses.join(' or ')}, not ${exchange.status}`]
  }
  return faultsOfResponse(exchange, pointer)
}

function faultsOfResponse(exchange: Exchange, pointer: string): string[] {
  const response = resolve(pointer)
  const headers = lowerCased(exchange.headers)
  return [
    ...faultsOfHeaders(headers, response.value, response.pointer),
    ...faultsOfContent(exchange, headers, response.value, response.pointer),
  ]
}

function faultsOfHeaders(headers: ReadonlyMap<string, string>, response: Json, pointer: string): string[] {
  const faults: string[] = []
  for (const name of Object.keys((response.headers as Json | undefined) ?? {})) {
    const header = resolve(`${pointer}/headers/${escapePointer(name)}`)
    const value = headers.get(name.toLowerCase())
    if (value === undefined) {
      if (header.value.required === true) faults.push(`the header ${name} is absent`)
    } else {
      const validate = validatorAt(`${header.pointer}/schema`)
      if (!validate(value)) faults.push(`the header ${name} ("${value}") ${describe(validate)}`)
    }
  }
  return faults
}

function faultsOfContent(
  exchange: Exchange,
  headers: ReadonlyMap<string, string>,
  response: Json,
  pointer: string,
): string[] {
  const content = response.content as Json | undefined
  const mediaType = mediaTypeOf(headers)
  const bodiless = exchange.method === 'HEAD'
  const body = exchange.body === undefined ? undefined : Buffer.from(exchange.body)
  if (content === undefined) {
    return body !== undefined && body.length > 0 && !bodiless ? ['the answer has a body'] : []
  }
  if (mediaType === undefined) return bodiless ? [] : ['the answer has no content type']
  if (content[mediaType] === undefined) {
    return content['*/*'] === undefined ? [`the content type ${mediaType} is not documented`] : []
  }
  const media = `${pointer}/content/${escapePointer(mediaType)}`
  if (bodiless || body === undefined || !/[/+]json$/.test(mediaType)) return []
  if (headers.has('content-encoding')) return []
  return faultsOfJson(body, `${media}/schema`)
}

function faultsOfJson(body: Buffer, pointer: string): string[] {
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch (error) {
    return [`the body is no JSON: ${(error as SyntaxError).message}`]
  }
  const validate = validatorAt(pointer)
  return validate(value) ? [] : [`the body ${describe(validate)}: ${body.toString('utf8').slice(0, 300)}`]
}

function describe(validate: ValidateFunction): string {
  const [error] = validate.errors ?? []
  return `${error?.instancePath ?? ''} ${error?.message ?? 'does not fit'} ${JSON.stringify(error?.params ?? {})}`.trim()
}

/** What is wrong with an answer, each as a sentence; none when it fits the contract. */
export function responseFaults(exchange: Exchange): string[] {
  const template = findTemplate(exchange.path)
  if (template === undefined)
    return undocumentedFaults(exchange, [404, 400, 417], 'the path is not documented')
  const operation = operationPointer(template, exchange.method)
  if (operation === undefined) {
    // The receiver may look at the vault, the id and the expectation before it looks at the method.
    const refusal = isReadOnly(template) && writeMethods.has(exchange.method) ? 403 : 405
    return undocumentedFaults(exchange, [refusal, 404, 400, 417], `${template} has no ${exchange.method}`)
  }
  const responses = resolve(operation).value.responses as Json
  // An expectation is judged before the resource is looked for, on every operation alike.
  if (exchange.status === 417) return faultsOfResponse(exchange, '/components/responses/ExpectationFailed')
  if (responses[exchange.status] === undefined) {
    return [`${template} does not document the status ${exchange.status}`]
  }
  return faultsOfResponse(exchange, `${operation}/responses/${exchange.status}`)
}

/** Throws an Error that says what is wrong when an answer does not fit the contract. */
export function checkResponse(exchange: Exchange): void {
  const faults = responseFaults(exchange)
  if (faults.length > 0) {
    throw new Error(`${exchange.method} ${exchange.path} → ${exchange.status}: ${faults.join('; ')}`)
  }
}

// -- watching a server ------------------------------------------------------------------------------

/** How much of a body is kept for judging. */
const maxRecordedBytes = 1024 * 1024

export class ResponseObserver {
  readonly #faults: string[] = []
  readonly #watched = new WeakSet<ServerResponse>()
  readonly #seen = new Set<string>()

  /** Answers seen so far, each as "METHOD template status". */
  get seen(): ReadonlySet<string> {
    return this.#seen
  }

  /** Throws when an answer since the last call broke the contract. For `afterEach`. */
  assertClean(): void {
    const faults = this.#faults.splice(0)
    if (faults.length > 0) throw new Error(`Answers that openapi.yaml does not allow:\n${faults.join('\n')}`)
  }

  /** Watches one answer. Call before the handler writes; twice is harmless. */
  watch(request: IncomingMessage, response: ServerResponse): void {
    if (this.#watched.has(response)) return
    this.#watched.add(response)
    const record = recordResponse(response)
    const method = request.method ?? ''
    const path = request.url ?? ''
    response.once('finish', () => {
      const exchange = { method, path, status: response.statusCode, ...record() }
      this.#seen.add(`${method} ${findTemplate(path) ?? '-'} ${response.statusCode}`)
      for (const fault of responseFaults(exchange)) {
        this.#faults.push(`${method} ${path} → ${response.statusCode}: ${fault}`)
      }
    })
  }
}

/** Records what a handler writes; the returned function tells it once the answer is out. */
function recordResponse(response: ServerResponse): () => Pick<Exchange, 'headers' | 'body'> {
  const pieces: Buffer[] = []
  let length = 0
  let written: OutgoingHttpHeaders = {}
  const keep = (piece: unknown, encoding: unknown): void => {
    if (typeof piece !== 'string' && !(piece instanceof Uint8Array)) return
    const bytes =
      typeof piece === 'string'
        ? Buffer.from(piece, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
        : Buffer.from(piece)
    length += bytes.length
    if (length <= maxRecordedBytes) pieces.push(bytes)
  }
  const { write, end, writeHead } = response
  response.write = function (this: ServerResponse, ...args: unknown[]) {
    keep(args[0], args[1])
    return Reflect.apply(write, this, args)
  } as typeof write
  // `end` may call `write` itself: only what comes in from outside is kept.
  response.end = function (this: ServerResponse, ...args: unknown[]) {
    keep(args[0], args[1])
    response.write = write
    return Reflect.apply(end, this, args)
  } as typeof end
  // Headers handed to `writeHead` never show up in `getHeaders` when none was set before.
  response.writeHead = function (this: ServerResponse, ...args: unknown[]) {
    const last = args.at(-1)
    if (typeof last === 'object' && last !== null && !Array.isArray(last))
      written = last as OutgoingHttpHeaders
    return Reflect.apply(writeHead, this, args)
  } as typeof writeHead
  return () => ({
    headers: { ...response.getHeaders(), ...written },
    body: length <= maxRecordedBytes ? Buffer.concat(pieces) : undefined,
  })
}

/**
 * Watches every answer of `server`, also to requests with `Expect`. Works before or after the server's
 * own listeners are added; adds none of its own where that would change what Node does by itself.
 */
export function observe(server: Server, observer = new ResponseObserver()): ResponseObserver {
  const watch = (request: IncomingMessage, response: ServerResponse): void =>
    observer.watch(request, response)
  server.prependListener('request', watch)
  for (const event of ['checkContinue', 'checkExpectation'] as const) {
    if (server.listenerCount(event) > 0) {
      server.prependListener(event, watch)
      continue
    }
    const onNewListener = (name: string | symbol): void => {
      if (name !== event) return
      server.off('newListener', onNewListener)
      server.prependListener(event, watch)
    }
    server.on('newListener', onNewListener)
  }
  return observer
}
