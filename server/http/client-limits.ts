/** What a receiver takes of its clients at once, and how long it waits for them. docs/operations.md has the whole table. */

export interface ClientLimits {
  /** Connections in all, and those of one address (of a /64 where it is IPv6; trusted proxies have no bound of their own). */
  readonly maxConnections: number
  readonly maxClientConnections: number
  /** Requests of one client at work at once; as many again as `maxWaitingRequests` wait for their turn. */
  readonly maxClientRequests: number
  readonly maxWaitingRequests: number
  /** From the connection, or from the end of the request before, until the head of a request is whole. */
  readonly headersTimeoutMs: number
  /** A connection on which nothing is asked any more. */
  readonly keepAliveMs: number
}

export const defaultClientLimits: ClientLimits = {
  // Some tens of KiB each, and as many file handles.
  maxConnections: 1024,
  // Our own client has 8: thirty machines behind one address.
  maxClientConnections: 256,
  // Of a request of somebody else, two rounds of these come before it (measured). Our own client has 8, and rarely more than 5.
  maxClientRequests: 32,
  maxWaitingRequests: 256,
  headersTimeoutMs: 30_000,
  keepAliveMs: 65_000,
}
