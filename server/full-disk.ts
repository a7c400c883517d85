/** What tells that the receiver's disk is full, whoever was the first to notice it. */
import { Problem } from '../protocol/problem.ts'

const fullCodes: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT'])
/** LevelDB keeps no code of the system's, only what strerror(3) says of it. */
const fullTexts = /no space left on device|disk quota exceeded/i

/** Whether space, or a quota of it, is what an error, or one that caused it, was for want of. */
export function isDiskFull(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && fullCodes.has(at.code)) return true
    if (fullTexts.test(at.message)) return true
  }
  return false
}

/** The Problem `insufficient-storage` that says so to clients: the log alone tells which file it was. */
export function diskFull(cause: unknown): Problem {
  return new Problem('insufficient-storage', 'there is no space left on the disk of the receiver', { cause })
}
