/** What is wrong with an answer, whatever was asked. */
import { type ProblemCode, problemCodes, statusOf } from '../../../protocol/problem.ts'
import { responseFaults } from '../openapi.ts'
import { secret } from './universe.ts'
import type { WireAnswer } from './wire-connection.ts'
import type { WireRequest } from './wire-request.ts'

export interface Circumstances {
  /** Whoever asks may not see what is in the sentinel. */
  readonly isStranger: boolean
  /** Stands in no answer. */
  readonly dataDir: string
}

/** 5xx that are meant: each with the code that it must have. */
const meant: Readonly<Record<number, string>> = {
  // Destination on another server: RFC 4918, section 9.8.5.
  502: 'bad-gateway',
  // With Retry-After.
  503: 'unavailable',
  // Beyond a quota that was set by another of the requests.
  507: 'insufficient-storage',
}

/** What only this process, or somebody at its machine, knows. */
const inside = ['node:internal', 'node_modules', '    at ']

export function faultsOf(
  answer: WireAnswer,
  request: WireRequest,
  { isStranger, dataDir }: Circumstances,
): string[] {
  const { status, body, headers } = answer
  const faults: string[] = []
  const text = body.toString('latin1')
  if (status >= 500 && meant[status] === undefined) faults.push(`status ${status}`)
  if (status === 503 && !headers.has('retry-after')) faults.push('503 without Retry-After')
  if (status >= 400) {
    if (!headers.has('x-request-id')) faults.push('an error without X-Request-Id')
    if (request.method !== 'HEAD') faults.push(...faultsOfProblem(answer, text))
    for (const part of [...inside, dataDir])
      if (text.includes(part)) faults.push(`the error tells of "${part}"`)
  }
  if (isStranger && text.includes(secret)) faults.push('tells what nobody but its owner may know')
  for (const [name, value] of headers) {
    if (isStranger && value.includes(secret))
      faults.push(`the header ${name} tells what nobody but its owner may know`)
    if (name === 'x-injected') faults.push('a header was injected')
  }
  if (isOrdinary(request)) {
    const exchange = {
      method: request.method,
      path: request.target,
      status,
      headers: Object.fromEntries(headers),
      body,
    }
    // Of a path below a resource the same is needed as of the resource, also by methods that only the latter has.
    const isRefused = isStranger && (status === 401 || status === 403)
    const found = responseFaults(exchange).filter(
      (fault) => !(isRefused && fault.includes('so the answer must be')),
    )
    faults.push(...found.map((fault) => `openapi.yaml: ${fault}`))
  }
  return faults
}

function faultsOfProblem({ status, headers }: WireAnswer, text: string): string[] {
  const mediaType = headers.get('content-type')?.split(';')[0]
  if (mediaType === 'application/xml')
    return /<[A-Za-z]*:?error\b/.test(text) ? [] : ['XML that is no DAV:error']
  if (mediaType === 'application/json' && status === 503) return []
  if (mediaType !== 'application/problem+json') return [`an error of the type ${mediaType}`]
  let problem: { type?: unknown; status?: unknown }
  try {
    problem = JSON.parse(Buffer.from(text, 'latin1').toString('utf8')) as typeof problem
  } catch (error) {
    return [`the problem is no JSON: ${(error as Error).message}`]
  }
  const code = String(problem.type).replace(/^urn:chunkdav:problem:/, '')
  if (!problemCodes.includes(code as ProblemCode)) return [`an unknown problem ${String(problem.type)}`]
  if (statusOf(code as ProblemCode) !== status || problem.status !== status)
    return [`${code} with the status ${status}`]
  const expected = meant[status]
  return expected === undefined || expected === code ? [] : [`${code} with the status ${status}`]
}

/** Whether the contract says something about it: what is no HTTP, or is about another host, is answered before that. */
function isOrdinary(request: WireRequest): boolean {
  return (
    request.isFramed &&
    request.times === 1 &&
    request.version === 'HTTP/1.1' &&
    /^\/[\x21-\x7e]*$/.test(request.target) &&
    // An empty name is nothing that the contract's templates know.
    !request.target.includes('//') &&
    /^[A-Z]+$/.test(request.method) &&
    request.headers.filter(([name]) => name.toLowerCase() === 'host').length === 1
  )
}
