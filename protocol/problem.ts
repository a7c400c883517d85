/**
 * Every error that a person or a program may see, as one class with a stable code, and one table
 * from code to HTTP status and title. On the wire a problem is an RFC 9457 problem document whose
 * `type` is `urn:chunkdav:problem:{code}`. Clients decide by the code, never by text.
 *
 * Codes without a status never travel: they arise on the client's own machine.
 */
const table = {
  'invalid-request': { status: 400, title: 'The request is malformed' },
  'invalid-id': { status: 400, title: 'The id is malformed' },
  'invalid-name': { status: 400, title: 'The vault or source name is malformed' },
  'invalid-object': { status: 400, title: 'The file or directory object is malformed' },
  'invalid-batch': { status: 400, title: 'The batch is malformed' },
  'invalid-encoding': { status: 400, title: 'The body does not decode' },
  'incomplete-body': { status: 400, title: 'The body ended early' },
  unauthenticated: { status: 401, title: 'Who asks is not known' },
  forbidden: { status: 403, title: 'This is not allowed here' },
  'vault-not-found': { status: 404, title: 'There is no such vault' },
  'chunk-not-found': { status: 404, title: 'There is no such chunk' },
  'checkpoint-not-found': { status: 404, title: 'There is no such checkpoint' },
  'not-found': { status: 404, title: 'There is no such resource' },
  'method-not-allowed': { status: 405, title: 'The resource does not have this method' },
  'vault-exists': { status: 405, title: 'The vault exists already' },
  'not-acceptable': { status: 406, title: 'No acceptable form of the resource exists' },
  conflict: { status: 409, title: 'The state of the tree does not allow this' },
  'base-not-found': { status: 409, title: 'The base that the patch starts from is not here' },
  'patch-conflict': { status: 409, title: 'The patch does not apply to its base' },
  'missing-chunks': { status: 409, title: 'Something that the root reaches is missing' },
  'checkpoint-committed': { status: 409, title: 'The checkpoint is committed and cannot change' },
  'items-conflict': { status: 409, title: 'The items do not continue the list' },
  'too-slow': { status: 408, title: 'The request came too slowly' },
  'precondition-failed': { status: 412, title: 'A precondition does not hold' },
  'body-too-large': { status: 413, title: 'The body is larger than this receiver takes' },
  'unsupported-media-type': { status: 415, title: 'The media type is not understood' },
  'unsupported-encoding': { status: 415, title: 'The content encoding is not understood' },
  'range-not-satisfiable': { status: 416, title: 'The range lies outside the content' },
  'expectation-failed': { status: 417, title: 'The expectation is not understood' },
  'digest-mismatch': { status: 422, title: 'The bytes do not hash to the id' },
  locked: { status: 423, title: 'The resource is locked' },
  'failed-dependency': { status: 424, title: 'Something that this depends on failed' },
  'too-many-requests': { status: 429, title: 'Too many requests came from there' },
  'internal-error': { status: 500, title: 'The receiver failed' },
  'chunk-corrupt': { status: 500, title: 'The stored chunk is damaged' },
  'bad-gateway': { status: 502, title: 'The destination is on another server' },
  unavailable: { status: 503, title: 'The receiver cannot serve this now' },
  'insufficient-storage': { status: 507, title: 'The receiver has no space left' },

  usage: { status: undefined, title: 'The command is used wrongly' },
  'transport-failed': { status: undefined, title: 'The receiver could not be reached' },
  'protocol-violation': { status: undefined, title: 'The receiver answered nonsense' },
  cancelled: { status: undefined, title: 'The work was cancelled' },
  'in-use': { status: undefined, title: 'Another process is at work on this' },
  'bad-certificate': { status: undefined, title: 'The certificate cannot be used' },
  'store-corrupt': { status: undefined, title: 'The data directory is damaged' },
  'source-unreadable': { status: undefined, title: 'The source could not be read' },
  'source-vanished': { status: undefined, title: 'The file vanished while the backup ran' },
  'source-changed': { status: undefined, title: 'The file changed while it was read' },
  'destination-exists': { status: undefined, title: 'Something else is at the destination' },
  'destination-failed': { status: undefined, title: 'The destination could not be written' },
  'unsafe-path': { status: undefined, title: 'The path would leave the destination' },
} as const satisfies Record<string, { status: number | undefined; title: string }>

export type ProblemCode = keyof typeof table
export const problemCodes = Object.keys(table) as ProblemCode[]

const typePrefix = 'urn:chunkdav:problem:'
/** Media type of a problem document: RFC 9457, section 3. */
export const problemMediaType = 'application/problem+json'

/** A problem document as it travels: RFC 9457, section 3.1, and extension members of our own. */
export interface ProblemDocument {
  type: string
  title: string
  status: number
  detail?: string
  [extension: string]: unknown
}

/**
 * An error with a stable `code`. `detail` is for people and says what to do next where that helps;
 * `extensions` are the machine-readable facts (an id, the missing ids, …); `cause` is always kept.
 */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly extensions: Readonly<Record<string, unknown>>

  constructor(
    code: ProblemCode,
    detail: string,
    options: { extensions?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(detail, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'Problem'
    this.code = code
    this.extensions = options.extensions ?? {}
  }

  /** The HTTP status, or undefined for a problem that never travels. */
  get status(): number | undefined {
    return table[this.code].status
  }

  get title(): string {
    return table[this.code].title
  }
}

/** Whether `error` is a Problem, and of `code` when one is given. */
export function isProblem(error: unknown, code?: ProblemCode): error is Problem {
  return error instanceof Problem && (code === undefined || error.code === code)
}

/** The status of a code, or undefined when it never travels. */
export function statusOf(code: ProblemCode): number | undefined {
  return table[code].status
}

/** The document that tells of `problem`; a code that never travels becomes `internal-error`. */
export function encodeProblem(problem: Problem): ProblemDocument {
  const code = problem.status === undefined ? 'internal-error' : problem.code
  const { status, title } = table[code]
  return {
    ...problem.extensions,
    type: typePrefix + code,
    title,
    status: status as number,
    detail: problem.message,
  }
}

/**
 * The problem that a document tells of. A type that this version does not know, or that never travels,
 * becomes the code that its status suggests, so that an older client still tells a refusal from a fault of the receiver.
 */
export function decodeProblem(document: unknown, status: number): Problem {
  const body = (typeof document === 'object' && document !== null ? document : {}) as Record<string, unknown>
  const { type, title, status: _status, detail, ...extensions } = body
  const name = typeof type === 'string' && type.startsWith(typePrefix) ? type.slice(typePrefix.length) : ''
  const travels = Object.hasOwn(table, name) && statusOf(name as ProblemCode) !== undefined
  const code = travels ? (name as ProblemCode) : codeForStatus(status)
  const text = typeof detail === 'string' ? detail : typeof title === 'string' ? title : `status ${status}`
  return new Problem(code, text, { extensions: { ...extensions, status } })
}

function codeForStatus(status: number): ProblemCode {
  if (status === 401) return 'unauthenticated'
  if (status === 403) return 'forbidden'
  if (status === 404) return 'not-found'
  if (status === 405) return 'method-not-allowed'
  if (status === 413) return 'body-too-large'
  if (status === 429) return 'too-many-requests'
  if (status === 507) return 'insufficient-storage'
  if (status === 502 || status === 503 || status === 504) return 'unavailable'
  return status >= 400 && status < 500 ? 'invalid-request' : 'internal-error'
}
