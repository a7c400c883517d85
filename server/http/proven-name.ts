import type { RequestState } from './context.ts'

/**
 * The name of the user that somebody other than the user vouches for: a certificate authority that the receiver was
 * told to trust (`--tls-client-ca`), or a proxy (`--trust-proxy` with `--proxy-user-header`). Undefined when nobody
 * does. Whether there is a user of that name, the accounts know; `Authorization` of the same request goes first.
 */
export function provenName({ state }: { readonly state: RequestState }): string | undefined {
  return state.provenName
}
