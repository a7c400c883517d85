/** Errors that RFC 4918 gives a name: their answer is XML (section 16), not a problem document. */
import { Problem, type ProblemCode } from '../../protocol/problem.ts'
import { escapeXml } from './xml.ts'

/** Names in `DAV:` that precondition and postcondition elements have here. */
export type Condition =
  | 'cannot-modify-protected-property'
  | 'lock-token-matches-request-uri'
  | 'lock-token-submitted'
  | 'no-conflicting-lock'
  | 'number-of-matches-within-limits'
  | 'propfind-finite-depth'
  | 'supported-report'
  | 'sync-traversal-supported'
  | 'valid-sync-token'

/** A problem whose answer is `D:error` with this condition; `hrefs` are the resources that it is about. */
export function davProblem(
  code: ProblemCode,
  detail: string,
  condition: Condition,
  hrefs: readonly string[] = [],
): Problem {
  return new Problem(code, detail, { extensions: { condition, hrefs } })
}

/** The document of a problem from `davProblem`; undefined for any other. */
export function errorDocument(problem: Problem): string | undefined {
  const { condition, hrefs } = problem.extensions as { condition?: Condition; hrefs?: readonly string[] }
  if (condition === undefined) return undefined
  return `<?xml version="1.0" encoding="utf-8"?>\n${errorXml(condition, hrefs)}\n`
}

/** `D:error`, for a document of its own or within a multistatus. */
export function errorXml(condition: Condition, hrefs: readonly string[] = []): string {
  const inner = hrefs.map((href) => `<D:href>${escapeXml(href)}</D:href>`).join('')
  return `<D:error xmlns:D="DAV:"><D:${condition}>${inner}</D:${condition}></D:error>`
}
