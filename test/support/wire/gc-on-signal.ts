/** Preloaded into a receiver: collects garbage when it is told to, and ends with whoever started it. */
import type { Socket } from 'node:net'

process.on('SIGUSR2', () => globalThis.gc?.())
process.stdin.on('end', () => process.exit()).resume()
// It must not keep the receiver from ending by itself.
;(process.stdin as unknown as Socket).unref()
