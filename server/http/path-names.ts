/** Paths as names, which are bytes. */
import { nameFault } from '../../protocol/objects.ts'
import { Problem } from '../../protocol/problem.ts'

export { encodeSegment } from '../../protocol/url.ts'

/**
 * The names of a percent-encoded path behind its first `skipped` segments. A slash at the end adds none.
 * Problem `invalid-request` for what does not decode, and for what no file can be called.
 */
export function pathNames(path: string, skipped: number): Buffer[] {
  const segments = path.split('/').slice(skipped + 1)
  if (segments.at(-1) === '') segments.pop()
  return segments.map(decodeName)
}

function decodeName(segment: string): Buffer {
  if (/%(?![0-9A-Fa-f]{2})/.test(segment)) {
    throw new Problem('invalid-request', `"${segment.slice(0, 80)}" is not percent-encoded well`)
  }
  // Node hands bytes that came without encoding over as latin1.
  const bytes = segment.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  const name = Buffer.from(bytes, 'latin1')
  const fault = nameFault(name)
  if (fault !== undefined) throw new Problem('invalid-request', `in the path ${fault}`)
  return name
}
