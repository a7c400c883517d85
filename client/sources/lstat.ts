/** `lstat` and `fstat` in the protocol's units. For worker threads: synchronous. */
import type { BigIntStats } from 'node:fs'
import type { EntryKind, SourceStat } from '../engine/source.ts'

/** What the file system says `stats` is; undefined for a kind that it does not know either. */
export function kindOf(stats: BigIntStats): EntryKind | undefined {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  if (stats.isSymbolicLink()) return 'symlink'
  if (stats.isFIFO()) return 'fifo'
  if (stats.isSocket()) return 'socket'
  if (stats.isCharacterDevice()) return 'character-device'
  if (stats.isBlockDevice()) return 'block-device'
  return undefined
}

/** The stat that the engine compares and the receiver keeps. */
export function sourceStat(stats: BigIntStats): SourceStat {
  const device = stats.isCharacterDevice() || stats.isBlockDevice() ? stats.rdev : 0n
  return {
    size: stats.isFile() ? Number(stats.size) : 0,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeNs: String(stats.mtimeNs),
    ctimeNs: String(stats.ctimeNs),
    inode: `${stats.dev}:${stats.ino}`,
    links: Number(stats.nlink),
    // glibc's gnu_dev_major and gnu_dev_minor: 12 + 20 bits each, interleaved.
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
    // st_blocks counts 512-byte units. A short file may be stored inline, in no block at all.
    sparse: stats.isFile() && stats.size > 4096n && stats.blocks * 512n < stats.size,
  }
}
