/** Preloaded into a receiver: collects garbage when it is told to, and ends with whoever started it. */
import type { Socket } from 'node:net'
import { isMainThread } from 'node:worker_threads'

if (isMainThread) {
  process.on('SIGUSR2', () => globalThis.gc?.())
  process.stdin.on('end', () => process.exit()).resume()
  // It must not keep the receiver from ending by itself.
  const stdin = process.stdin as unknown as Socket
  stdin.unref()
}
