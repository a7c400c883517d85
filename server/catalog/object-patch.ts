/** JSON Patch on objects, RFC 6902, with the bounds that a patch from somebody else needs. */
import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { applyPatch, type Operation, Pointer } from 'rfc6902'
import { Problem } from '../../protocol/problem.ts'
import type { DirectoryObject, FileObject } from '../../protocol/schema.ts'

const maxOperations = 10_000
/** Operations between two turns of the event loop. */
const operationsAtOnce = 50
const knownOperations = new Set(['add', 'remove', 'replace', 'move', 'copy', 'test'])

/** The operations of a patch document; Problem `invalid-request`. */
export function parsePatch(text: string): Operation[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Problem('invalid-request', `the patch is no JSON: ${(cause as SyntaxError).message}`, { cause })
  }
  if (!Array.isArray(value) || value.length > maxOperations || !value.every(isOperation)) {
    throw new Problem(
      'invalid-request',
      `a patch is an array of at most ${maxOperations} operations (RFC 6902)`,
    )
  }
  return value
}

function isOperation(value: unknown): value is Operation {
  if (typeof value !== 'object' || value === null) return false
  const { op, path, from } = value as Record<string, unknown>
  if (typeof op !== 'string' || !knownOperations.has(op) || !isPointer(path)) return false
  if (op === 'move' || op === 'copy') return isPointer(from)
  return op === 'remove' || 'value' in value
}

function isPointer(value: unknown): value is string {
  return typeof value === 'string' && (value === '' || value.startsWith('/'))
}

/**
 * The bytes of the object with the patch applied; `object` itself is used up. Problem `patch-conflict` when
 * an operation does not apply, or makes the object larger than `maxBytes` by copies, or nest too deep.
 */
export async function applyObjectPatch(
  object: FileObject | DirectoryObject,
  operations: readonly Operation[],
  maxBytes: number,
): Promise<Buffer> {
  let copiedBytes = 0
  for (const [position, operation] of operations.entries()) {
    if (position % operationsAtOnce === operationsAtOnce - 1) await yieldToEventLoop()
    try {
      if (operation.op === 'copy') {
        // Copies of copies double each time; without a bound a short patch fills any memory.
        const { value } = Pointer.fromJSON(operation.from).evaluate(object)
        copiedBytes += JSON.stringify(value)?.length ?? 0
        if (copiedBytes > maxBytes) throw conflict(position, 'it copies too much')
      }
      const [error] = applyPatch(object, [operation])
      if (error) throw conflict(position, error.message, error)
    } catch (error) {
      if (error instanceof RangeError) throw conflict(position, 'it nests too deep', error)
      throw error
    }
  }
  try {
    return Buffer.from(JSON.stringify(object), 'utf8')
  } catch (error) {
    if (error instanceof RangeError) throw conflict(operations.length, 'the object nests too deep', error)
    throw error
  }
}

function conflict(position: number, why: string, cause?: unknown): Problem {
  return new Problem('patch-conflict', `operation ${position} of the patch does not apply: ${why}`, {
    cause,
    extensions: { operation: position },
  })
}
