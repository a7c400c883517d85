/** Several buffers, one behind the other, looked at as one. */

export function lengthOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

/** Copies what there is room for; says how much that is. */
export function fill(memory: Buffer, parts: readonly Buffer[]): number {
  let filled = 0
  for (const part of parts) filled += part.copy(memory, filled)
  return filled
}

/** The first `bytes` of `parts`. */
export function upTo(parts: readonly Buffer[], bytes: number): Buffer[] {
  const first: Buffer[] = []
  let left = bytes
  for (const part of parts) {
    if (left === 0) break
    first.push(part.subarray(0, left))
    left -= Math.min(left, part.length)
  }
  return first
}

/** What is left of `parts` when their first `written` bytes are done: a short write goes on there. */
export function behind(parts: readonly Buffer[], written: number): Buffer[] {
  const rest: Buffer[] = []
  let skip = written
  for (const part of parts) {
    if (skip >= part.length) skip -= part.length
    else {
      rest.push(part.subarray(skip))
      skip = 0
    }
  }
  return rest
}
