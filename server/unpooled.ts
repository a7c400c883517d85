/**
 * These bytes in memory of their own. Node carves small buffers out of slabs of 64 KiB, and any one of them keeps its
 * slab: what is kept for long, and counted by its length, would take a thousand times as much.
 */
export function unpooled(bytes: Buffer): Buffer {
  if (bytes.buffer.byteLength <= 2 * bytes.length) return bytes
  const own = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(own)
  return own
}
