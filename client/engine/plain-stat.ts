import type { SourceStat } from './source.ts'

/** A stat with fields of its own, to make another one of: those of a packed one (packed-stat.ts) are read when they are asked for. */
export function plainStat(stat: SourceStat): SourceStat {
  const { size, mode, uid, gid, mtimeNs, ctimeNs, inode, links, major, minor, sparse } = stat
  return { size, mode, uid, gid, mtimeNs, ctimeNs, inode, links, major, minor, sparse }
}
