import { setImmediate as nextTurn } from 'node:timers/promises'
import { Problem } from '../../protocol/problem.ts'

/** Lets others have the event loop before the next object is read. Problem `unavailable` when nobody waits any more. */
export async function takeTurn(signal: AbortSignal | undefined): Promise<void> {
  await nextTurn()
  if (signal?.aborted === true) throw new Problem('unavailable', 'nobody waits for the answer any more')
}
