import type { IncomingMessage } from 'node:http'

/** Pieces that wait for the reader before the connection is held back: 64 KiB each. */
const maxWaiting = 4

/**
 * The body of an answer in the pieces in which the connection gave them: Node's own iterator joins what came while the
 * reader was at work, which copies it. Leaving early ends the connection.
 */
export async function* bodyPieces(incoming: IncomingMessage): AsyncGenerator<Buffer, void, undefined> {
  const waiting: Buffer[] = []
  let end: { readonly error: unknown } | undefined
  let wake = (): void => {}
  const over = (error: unknown): void => {
    end ??= { error }
    wake()
  }
  incoming.on('data', (piece: Buffer) => {
    waiting.push(piece)
    if (waiting.length === maxWaiting) incoming.pause()
    wake()
  })
  incoming.once('end', () => over(undefined))
  incoming.on('error', over)
  const broken = (): void => over(Object.assign(new Error('aborted'), { code: 'ECONNRESET' }))
  incoming.once('close', broken)
  // It may have broken off before anybody read: then nothing is told any more.
  if (incoming.destroyed) broken()
  try {
    for (;;) {
      const piece = waiting.shift()
      if (piece !== undefined) yield piece
      else if (end !== undefined) {
        if (end.error !== undefined) throw end.error
        return
      } else {
        const change = new Promise<void>((resolve) => {
          wake = resolve
        })
        if (incoming.isPaused()) incoming.resume()
        await change
      }
    }
  } finally {
    if (end === undefined) incoming.destroy()
  }
}
