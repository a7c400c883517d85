/** What PROPFIND needs wherever it is served. */
import { Problem } from '../../protocol/problem.ts'
import type { Context } from '../http/context.ts'
import { mayBeXml } from '../http/context.ts'
import { xmlText } from '../http/dav-bodies.ts'
import { type PropfindBody, parsePropfind } from '../http/dav-xml.ts'
import type { MemoryBudget } from '../http/memory-budget.ts'
import { uncountedTextBytes, withBody } from '../http/request-body.ts'

const maxPropfindBytes = 64 * 1024

export interface Propfind extends PropfindBody {
  readonly depth: 0 | 1
}

/**
 * Depth and body of a PROPFIND. Undefined when the answer is given already: a tree is not listed in one go
 * (RFC 4918, section 9.1, lets a server refuse; an absent Depth means infinity).
 */
export async function readPropfind(ctx: Context, budget: MemoryBudget): Promise<Propfind | undefined> {
  const depth = ctx.get('Depth').trim().toLowerCase()
  if (depth === '' || depth === 'infinity') {
    ctx.status = 403
    ctx.type = 'application/xml; charset=utf-8'
    ctx.body =
      '<?xml version="1.0" encoding="utf-8"?>\n<D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>\n'
    return undefined
  }
  if (depth !== '0' && depth !== '1') throw new Problem('invalid-request', 'Depth must be 0, 1 or infinity')
  if (!mayBeXml(ctx)) {
    throw new Problem('unsupported-media-type', 'the body of PROPFIND is XML')
  }
  const rules = { maxBytes: maxPropfindBytes, uncountedBytes: uncountedTextBytes }
  const body = await withBody(ctx, budget, rules, async ({ bytes }) => parsePropfind(xmlText(bytes)))
  return { ...body, depth: depth === '0' ? 0 : 1 }
}

export function answerMultistatus(ctx: Context, body: string): void {
  ctx.status = 207
  ctx.type = 'application/xml; charset=utf-8'
  ctx.body = body
}
