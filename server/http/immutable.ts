import { anybody } from '../access/identity.ts'
import type { Context } from './context.ts'

/** `Cache-Control` of what never changes. Where one must log in to see it, no cache may keep it for others. */
export function immutableFor({ state }: Pick<Context, 'state'>): string {
  return `${state.who === anybody ? 'public' : 'private'}, max-age=31536000, immutable`
}
