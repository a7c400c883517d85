/** Whether these bytes may be a file or directory object: JSON that begins an object, behind white space (RFC 8259, section 2). */
export function mayBeObject(bytes: Buffer): boolean {
  let at = 0
  while (at < 64 && [0x20, 0x09, 0x0a, 0x0d].includes(bytes[at] ?? 0)) at++
  return at === 64 || bytes[at] === 0x7b
}
