/** What a receiver's refusal means to a person, and what to do next. The code stays what the receiver said. */
import prettyBytes from 'pretty-bytes'
import { Problem } from '../protocol/problem.ts'
import { type RefusedAnswer, receiverProblem } from './http.ts'
import { loginAdvice } from './login.ts'
import type { VaultLocation } from './vault-url.ts'

/** For the transport of a client of the vault at `location`. */
export function refusalOf(location: VaultLocation): (answer: RefusedAnswer) => Problem {
  return (answer) => {
    const problem = receiverProblem(answer)
    const text = adviceOn(problem, answer, location)
    if (text === undefined) return problem
    return new Problem(problem.code, text, { extensions: problem.extensions, cause: problem.cause })
  }
}

function adviceOn(
  problem: Problem,
  answer: RefusedAnswer,
  { shown, headers, certificate }: VaultLocation,
): string | undefined {
  const { code, message } = problem
  if (code === 'unauthenticated') return loginAdvice(shown, headers, certificate !== undefined)
  // A right is what is lacking: others can give it.
  if (code === 'forbidden' && problem.extensions.need !== undefined) {
    return `${message}; ask whoever runs the receiver`
  }
  const { quotaBytes, storedBytes } = problem.extensions
  if (code === 'insufficient-storage' && typeof quotaBytes === 'number') {
    const holds = typeof storedBytes === 'number' ? `, and it holds ${prettyBytes(storedBytes)}` : ''
    return `the vault is full: its quota is ${prettyBytes(quotaBytes)}${holds}; make room (chunkdav prune, then chunkdav gc), or let an operator raise it (chunkdav quota); then run the command again, it goes on from what was done`
  }
  if (code === 'insufficient-storage') {
    return `${message}; when there is room, run the command again, it goes on from what was done`
  }
  const id = answer.headers['x-request-id']
  if (message.endsWith('under the request id') && id !== undefined) return `${message} ${id}`
  const seconds = answer.headers['retry-after']
  if (code === 'too-many-requests' && seconds !== undefined) {
    return `${message}; try again in ${seconds} seconds`
  }
  return undefined
}

/** What is told when there is no vault; who logs in may only not see it. */
export function noVaultText({ shown, headers }: VaultLocation): string {
  return headers.authorization === undefined
    ? `there is no vault at ${shown}; check the URL`
    : `there is no vault at ${shown}, or none on which you have a right; check the URL and who you are there`
}
