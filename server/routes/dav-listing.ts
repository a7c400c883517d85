/** A collection as a page to look at and click through. No script: its policy allows none. */

import { encodeSegment } from '../http/path-names.ts'
import { escapeXml } from '../http/xml.ts'
import type { Shown } from './dav-view.ts'

const pieceChars = 64 * 1024

/** The page in pieces. `href` is the collection's path, percent-encoded, with a slash at its end. */
export async function* htmlListing(href: string, members: AsyncIterable<Shown>): AsyncGenerator<Buffer> {
  const title = escapeXml(decodeURIComponentLeniently(href))
  let text = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title>
<style>body{font-family:sans-serif}td{padding:0 1em 0 0}td+td{text-align:right;white-space:nowrap}</style></head>
<body><h1>${title}</h1><table>
<tr><td><a href="${escapeXml(parentOf(href))}">..</a></td><td></td><td></td></tr>
`
  for await (const member of members) {
    text += row(href, member)
    if (text.length < pieceChars) continue
    yield Buffer.from(text, 'utf8')
    text = ''
  }
  yield Buffer.from(`${text}</table></body></html>\n`, 'utf8')
}

function row(href: string, { kind, name, part, mtimeNs }: Shown): string {
  const slash = kind === 'directory' ? '/' : ''
  const link = escapeXml(`${href}${encodeSegment(name)}${slash}`)
  const ms = Number(BigInt(mtimeNs) / 1_000_000n)
  const time = Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString().slice(0, 19).replace('T', ' ') : ''
  return `<tr><td><a href="${link}">${escapeXml(name.toString('utf8'))}${slash}</a></td><td>${part?.size ?? ''}</td><td>${time}</td></tr>\n`
}

function parentOf(href: string): string {
  return href.replace(/[^/]+\/$/, '')
}

/** Bytes that are not UTF-8 become U+FFFD. */
function decodeURIComponentLeniently(path: string): string {
  const bytes = path.replace(/%([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString('utf8')
}
