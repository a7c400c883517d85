/** Stands before a WebDAV server, counts what passes, and refuses or breaks what a test says. */
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface PassedRequest {
  readonly method: string
  /** Percent-encoded. */
  readonly path: string
}

/**
 * What becomes of a request: passed on; answered with this status, before its body has come; reset; or
 * passed on and the answer kept back, as if the connection had broken.
 */
export type Verdict =
  | 'pass'
  | 'reset'
  | 'no-answer'
  | { readonly status: number; readonly headers?: Record<string, string> }

export class DavProxy implements AsyncDisposable {
  readonly requests: PassedRequest[] = []
  /** Is asked about every request. */
  rule: (request: PassedRequest) => Verdict = () => 'pass'
  /** What the server behind it is asked for in a path's stead. */
  rename: (path: string) => string = (path) => path
  readonly #upstream: URL
  readonly #server = createServer((request, response) => this.#serve(request, response))

  private constructor(upstream: string) {
    this.#upstream = new URL(upstream)
  }

  static async start(upstream: string): Promise<DavProxy> {
    const proxy = new DavProxy(upstream)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get url(): string {
    const { pathname } = this.#upstream
    return `${this.#origin}${pathname === '/' ? '' : pathname}`
  }

  get #origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** How often each method came since `from`. */
  counts(from = 0): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const { method } of this.requests.slice(from)) counts[method] = (counts[method] ?? 0) + 1
    return counts
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const passed = { method: request.method ?? '', path: request.url ?? '' }
    this.requests.push(passed)
    const verdict = this.rule(passed)
    request.on('error', () => {})
    if (verdict === 'reset') {
      request.socket.resetAndDestroy()
    } else if (typeof verdict === 'object') {
      response
        .writeHead(verdict.status, { connection: 'close', ...verdict.headers })
        .end('refused by the proxy')
    } else {
      this.#pass(request, response, verdict === 'no-answer')
    }
  }

  #pass(request: IncomingMessage, response: ServerResponse, keepBack: boolean): void {
    const { host, hostname, port, origin } = this.#upstream
    const headers: IncomingMessage['headers'] = { ...request.headers, host }
    if (typeof headers.destination === 'string') {
      headers.destination = this.rename(headers.destination.replace(this.#origin, origin))
    }
    const outgoing = httpRequest({
      hostname,
      port,
      method: request.method,
      path: this.rename(request.url ?? ''),
      headers,
    })
    outgoing.on('response', (answer) => {
      if (keepBack) {
        request.socket.resetAndDestroy()
        outgoing.destroy()
        return
      }
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(response)
    })
    outgoing.on('error', () => response.destroy())
    request.on('close', () => {
      if (!request.complete) outgoing.destroy()
    })
    request.pipe(outgoing)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
