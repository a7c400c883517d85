import { Problem } from '../../protocol/problem.ts'
import type { Context } from './context.ts'

/** Query parameter `name`, or null. Not by `ctx.URL`, which is empty when the Host header is malformed. */
export function queryParameter(ctx: Context, name: string): string | null {
  return new URLSearchParams(ctx.querystring).get(name)
}

/** Query parameter `name` as a whole number, or `fallback` when it is not there. */
export function countParameter(ctx: Context, name: string, fallback: number): number {
  const text = queryParameter(ctx, name)
  if (text === null) return fallback
  if (!/^(0|[1-9][0-9]{0,14})$/.test(text)) {
    throw new Problem('invalid-request', `${name} must be a whole number, not "${text.slice(0, 40)}"`)
  }
  return Number(text)
}
