/** A Unix socket as a file: who may open it, and what to do about one that was left behind. */
import { chmodSync, lstatSync, type Stats, unlinkSync } from 'node:fs'
import { connect, type Server } from 'node:net'
import { isMainThread } from 'node:worker_threads'
import { Problem } from '../../protocol/problem.ts'

/** The longest that the kernel takes, with the byte behind it. */
const maxPathBytes = 107

/**
 * Removes the socket of a receiver that was killed. Problem `in-use` when somebody listens there, or when something
 * else than a socket has the name.
 */
export async function clearStaleSocket(path: string): Promise<void> {
  if (Buffer.byteLength(path) > maxPathBytes) {
    throw new Problem('usage', `${path} is too long for a socket; ${maxPathBytes} bytes are allowed`)
  }
  const there = lstatIfThere(path)
  if (there === undefined) return
  if (!there.isSocket()) throw new Problem('in-use', `${path} is there, and is no socket`)
  if (await isListenedTo(path)) throw new Problem('in-use', `somebody listens on ${path} already`)
  const still = lstatIfThere(path)
  if (still?.ino === there.ino && still.dev === there.dev) unlinkSync(path)
}

function lstatIfThere(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false })
}

async function isListenedTo(path: string): Promise<boolean> {
  const socket = connect(path)
  const code = await new Promise<string | undefined>((resolve) => {
    socket.once('connect', () => resolve(undefined))
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code))
  })
  socket.destroy()
  // Anything else, such as a full queue or a want of permission, may come from somebody who is there.
  return code !== 'ECONNREFUSED' && code !== 'ENOENT'
}

/** Calls `bind`, which makes the socket before it returns, so that it never has more rights than `mode`. */
export function bindWithMode(path: string, mode: number, server: Server, bind: () => void): void {
  // A process has one mask, and threads cannot set it: there the socket is open to others for a moment.
  const before = isMainThread ? process.umask(0o777 & ~mode) : undefined
  try {
    bind()
  } finally {
    if (before !== undefined) process.umask(before)
  }
  if (server.listening) chmodSync(path, mode)
}
