/** The connections of a server: which of them have a request under way, and what is said to those that break HTTP. */
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Logger } from 'pino'
import { encodeProblem, Problem, problemMediaType } from '../../protocol/problem.ts'

/**
 * Requests of one connection that are under way. Node takes as many as a client sends: some megabytes of them
 * would be gigabytes of memory, and seconds without an answer for everybody else. Few clients send a second
 * before the first is answered, and those must be prepared to send again: RFC 9112, section 9.3.2.
 */
const maxPipelined = 256

export class Connections {
  private readonly log: Logger
  private readonly underWay = new Map<Duplex, Set<ServerResponse>>()
  private stopping = false

  /** To be made before the server listens. */
  constructor(server: Server, log: Logger) {
    this.log = log
    server.on('connection', (socket) => {
      this.underWay.set(socket, new Set())
      socket.once('close', () => this.underWay.delete(socket))
    })
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.refuse(error, socket))
  }

  /** To be called with every request. Whether it is to be answered: nobody waits for so many. */
  began({ socket }: IncomingMessage, response: ServerResponse): boolean {
    const answers = this.underWay.get(socket)
    if (answers === undefined || socket.destroyed) return false
    if (answers.size >= maxPipelined) {
      this.log.info('a client has sent too many requests without waiting for answers')
      socket.destroy()
      return false
    }
    answers.add(response)
    response.once('close', () => {
      answers.delete(response)
      if (this.stopping) this.closeIfIdle(socket, answers)
    })
    return true
  }

  /** Ends every connection as soon as no request is under way on it: also those that never sent one. */
  closeWhenIdle(): void {
    this.stopping = true
    for (const [socket, answers] of this.underWay) this.closeIfIdle(socket, answers)
  }

  private closeIfIdle(socket: Duplex, answers: Set<ServerResponse>): void {
    // One that has been ended lingers, so that its client gets the answer: linger.ts.
    if (answers.size === 0 && !socket.writableEnded) socket.destroy()
  }

  /** What is no HTTP reaches no handler. A problem document, unless part of another answer has left. */
  private refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
    const answers = [...(this.underWay.get(socket) ?? [])]
    const late = error.code === 'ECONNRESET' || error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
    if (late || !socket.writable || answers.length > 1 || answers.some((answer) => answer.headersSent)) {
      socket.destroy()
      return
    }
    const requestId = randomUUID()
    this.log.info({ err: error, requestId }, 'what a client sent is not HTTP')
    const detail =
      error.code === 'HPE_HEADER_OVERFLOW' ? 'the headers are too long' : 'the request is not HTTP/1.1'
    const body = JSON.stringify(encodeProblem(new Problem('invalid-request', detail)))
    socket.end(
      [
        'HTTP/1.1 400 Bad Request',
        `Content-Type: ${problemMediaType}`,
        `Content-Length: ${Buffer.byteLength(body)}`,
        `X-Request-Id: ${requestId}`,
        'Connection: close',
        '',
        body,
      ].join('\r\n'),
      () => socket.destroy(),
    )
  }
}
