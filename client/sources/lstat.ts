/** `lstat` and `fstat` in the protocol's units. For worker threads: synchronous. */
import { type BigIntStats, constants } from 'node:fs'
import type { StatToPack } from '../engine/packed-stat.ts'
import type { EntryKind, SourceStat } from '../engine/source.ts'

const { S_IFMT, S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK } = constants
const kinds = new Map<number, EntryKind>([
  [S_IFREG, 'file'],
  [S_IFDIR, 'directory'],
  [S_IFLNK, 'symlink'],
  [S_IFIFO, 'fifo'],
  [S_IFSOCK, 'socket'],
  [S_IFCHR, 'character-device'],
  [S_IFBLK, 'block-device'],
])

/** What the file system says `stats` is; undefined for a kind that it does not know either. */
export function kindOf(stats: BigIntStats): EntryKind | undefined {
  return kinds.get(Number(stats.mode) & S_IFMT)
}

/** The stat that the engine compares and the receiver keeps. */
export function sourceStat(stats: BigIntStats): SourceStat {
  const { device, inode, mtimeNs, ctimeNs, ...numbers } = statToPack(stats)
  return {
    ...numbers,
    mtimeNs: String(mtimeNs),
    ctimeNs: String(ctimeNs),
    inode: `${device}:${inode}`,
  }
}

/** Few steps in BigInt: this is for every file. */
export function statToPack(stats: BigIntStats): StatToPack {
  const mode = Number(stats.mode)
  const format = mode & S_IFMT
  const device = format === S_IFCHR || format === S_IFBLK ? stats.rdev : undefined
  const size = format === S_IFREG ? Number(stats.size) : 0
  return {
    size,
    mode: mode & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeNs: stats.mtimeNs,
    ctimeNs: stats.ctimeNs,
    device: stats.dev,
    inode: stats.ino,
    links: Number(stats.nlink),
    // glibc's gnu_dev_major and gnu_dev_minor: 12 + 20 bits each, interleaved.
    major: device === undefined ? 0 : Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: device === undefined ? 0 : Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
    // st_blocks counts 512-byte units. A short file may be stored inline, in no block at all.
    sparse: size > 4096 && Number(stats.blocks) * 512 < size,
  }
}
