/** Owner, mode and time of what was restored, set in the one order that works. */
import { chmodSync, chownSync, lchownSync } from 'node:fs'
import { getegid, geteuid } from 'node:process'
import type { Attributes, Entry } from '../../protocol/schema.ts'
import { setModificationTime } from '../posix.ts'

const setuid = 0o4000
const setgid = 0o2000

/** Whether this process may give files to others and make devices. */
export function isRoot(): boolean {
  return geteuid?.() === 0
}

/**
 * Sets owner (root only), mode, then time of what is at `path`. The owner goes first, since a change of
 * owner clears setuid. Without root the file belongs to whoever restores: then it keeps setuid or setgid
 * only if that is whose rights they give.
 */
export function setAttributes(path: Buffer, kind: Entry['kind'], attributes: Attributes): void {
  const { mode, uid, gid, mtimeNs } = attributes
  const root = isRoot()
  if (kind === 'symlink') {
    if (root) lchownSync(path, uid, gid)
  } else {
    if (root) chownSync(path, uid, gid)
    chmodSync(path, root || kind === 'directory' ? mode : ownMode(mode, uid, gid))
  }
  setModificationTime(path, BigInt(mtimeNs))
}

function ownMode(mode: number, uid: number, gid: number): number {
  const dropped = (geteuid?.() === uid ? 0 : setuid) | (getegid?.() === gid ? 0 : setgid)
  return mode & ~dropped
}
