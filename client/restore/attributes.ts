/** Owner, mode and time of what was restored, set in the one order that works. */
import { chmodSync, chownSync, fchmodSync, fchownSync, fstatSync, lchownSync } from 'node:fs'
import type { Attributes, Entry } from '../../protocol/schema.ts'
import { setFileTime, setModificationTime } from '../posix.ts'

const setuid = 0o4000
const setgid = 0o2000
/**
 * Whose a file is that is made here: for the writing threads alone, which begin with each restore. Asked for each file, it
 * was a third of all system calls.
 */
const own = { uid: process.geteuid?.(), gid: process.getegid?.() }

/** Whether this process may give files to others and make devices. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0
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

/** The mode to create a file with: the final one only where it is whose it shall be from the start. */
export function creationMode({ mode, uid, gid }: Attributes): number {
  return uid === own.uid && gid === own.gid ? mode & 0o777 : 0o600
}

/** As `setAttributes`, of an open file, where they differ from what creation gave. */
export function setFileAttributes(fd: number, attributes: Attributes): void {
  const { uid, gid, mtimeNs } = attributes
  const root = own.uid === 0
  const mode = root ? attributes.mode : ownMode(attributes.mode, uid, gid)
  const stats = fstatSync(fd)
  const isOwned = !root || (stats.uid === uid && stats.gid === gid)
  if (!isOwned) fchownSync(fd, uid, gid)
  if (!isOwned || (stats.mode & 0o7777) !== mode) fchmodSync(fd, mode)
  setFileTime(fd, BigInt(mtimeNs))
}

function ownMode(mode: number, uid: number, gid: number): number {
  const dropped = (process.geteuid?.() === uid ? 0 : setuid) | (process.getegid?.() === gid ? 0 : setgid)
  return mode & ~dropped
}
