/**
 * What a file is called on the server. A name stays as it is where any server can hold it. Otherwise the bytes
 * in question stand as %XX, and so does a `%` that would look like that: a stored name always decodes to the
 * one name that it was made from. Only a name that grows too long by this is cut, and a hash takes the place
 * of the rest; the manifest tells every stored name that is not the name itself.
 *
 *     not UTF-8                     sm\xf8rrebr\xf8d  →  sm%F8rrebr%F8d
 *     control characters, `\`       a\nb              →  a%0Ab
 *     what Apache keeps to itself   .htaccess, .DAV   →  %2Ehtaccess, %2EDAV (and .davfs.tmp…, which it does not copy)
 *     what looks like one of these  100%25            →  100%2525
 */
import { isUtf8 } from 'node:buffer'
import { createHash } from 'node:crypto'

/** Of one name in bytes, on every common file system. */
const maxNameBytes = 255
const keptOfLongNames = 180

/** The name's bytes on the server. */
export function storedName(name: Buffer): Buffer {
  const escaped = escapedName(name)
  if (escaped.length <= maxNameBytes || escaped.length === name.length) return escaped
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 24)
  // A stored name must not be cut within a character.
  const start = escaped.subarray(0, keptOfLongNames).toString('latin1').replace(/%.?$/, '')
  const whole = start.replace(/[\x80-\xff]+$/, '')
  return Buffer.from(`${whole}%~${hash}`, 'latin1')
}

function escapedName(name: Buffer): Buffer {
  let text = name.toString('latin1')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  text = text.replace(/%(?=[0-9a-fA-F]{2}|~)|[\u0000-\u001f\u007f\\]/g, percent)
  if (!isUtf8(name)) text = text.replace(/[\x80-\xff]/g, percent)
  text = text.replace(/^\.(?=ht|DAV$|davfs\.tmp)/i, percent)
  return Buffer.from(text, 'latin1')
}

function percent(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
}
