/** A verifying thread's inside: the batches that it has, of each a block in turn. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { parentPort } from 'node:worker_threads'
import { isProblem } from '../../protocol/problem.ts'
import { type BatchVerdict, judgeBatch } from './batch-verdict.ts'
import type { FromVerifier, ToVerifier } from './verifying-thread.ts'

interface Job extends ToVerifier {
  readonly steps: Generator<boolean, BatchVerdict>
}

const jobs: Job[] = []
let heldBytes = 0
let isBusy = false

/** What a block that does not decode leaves behind only the collector can free, which waits for gigabytes of it (measured). */
const leftAtMost = 64 * 1024 * 1024
setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** The answer, when the job has ended with this step. Whatever else is thrown is a defect, and ends the thread. */
function step({ job, bytes, length, steps }: Job): FromVerifier | undefined {
  try {
    const { done, value } = steps.next()
    if (done === true) return { job, bytes, length, verdict: value }
    if (value && getHeapStatistics().external_memory > heldBytes + leftAtMost) collect()
    return undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    const { code, message, extensions } = error
    return { job, bytes, length, problem: { code, message, extensions } }
  }
}

async function work(): Promise<void> {
  isBusy = true
  for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
    const answer = step(job)
    if (answer === undefined) jobs.push(job)
    else {
      heldBytes -= answer.bytes.byteLength
      parentPort?.postMessage(answer, [answer.bytes])
    }
    // So that further batches are heard of.
    await nextTurn()
  }
  isBusy = false
}

parentPort?.on('message', (message: ToVerifier | null) => {
  if (message === null) {
    jobs.length = 0
    parentPort?.close()
    return
  }
  heldBytes += message.bytes.byteLength
  jobs.push({ ...message, steps: judgeBatch(Buffer.from(message.bytes, 0, message.length)) })
  if (!isBusy) void work()
})
